"""The configuration tree: flow parameter, YAML preset and CLI options in one.

One model per stage holds what decides its result (its identity); `runtime` holds how and where
it is run and enters no digest. Endpoints and secrets are not here: they come from the environment
(`infra/settings.py`). Field docstrings are the help texts of the Prefect form and of the CLI.

Models are referred to by text: `bundled:smollm2-135m-instruct`, a Hub id `org/name[@revision]`, a
path (`/…`, `./…`, `file://…`), `s3://bucket/prefix`, or MLflow's `models:/name@alias` and
`models:/name/3`. Before a run they are pinned (`infra/models.py`): an alias becomes a version, and
`#digest` is appended, which alone enters digests.
"""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pvar.circular_judge import refuse_circular_judge
from pvar.config_model import ConfigModel, Name
from pvar.judge_config import AfinnJudge, JudgeConfig
from pvar.number_format import NumberFormatChoice
from pvar.placement import PlacementConfig
from pvar.references import DataReference, ModelReference
from pvar.reward_config import RewardModelConfig, VaderReward
from pvar.selection import STRATEGIES
from pvar.selection.implicit_gap import IMPLICIT_GAP
from pvar.selection_config import PairConfig, SelectConfig
from pvar.vllm_config import VllmConfig


class IngestConfig(ConfigModel):
    """Where prompts come from and which are kept."""

    source: DataReference = "bundled:sentiment"
    """A JSONL or Parquet file (path or s3://), `hub:org/name[:split]`, or `bundled:sentiment`.
    Rows are prompts or preferences in TRL's standard or conversational format. A row with `answer`
    (a text, or a list of accepted ones) is an ability question: always held out, never judged."""
    eval_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Share of the prompts held out for evaluation, chosen by a hash of the prompt id."""
    near_duplicate_similarity: float | None = Field(default=0.8, gt=0, le=1)
    """Prompts whose estimated Jaccard similarity to an earlier one is at least this are dropped.
    None keeps near-duplicates; exact ones are always dropped."""
    decontaminate_against: tuple[DataReference, ...] = ()
    """Files of evaluation prompts; training prompts that share an n-gram with one are dropped."""
    decontaminate_ngram_words: int = Field(default=13, ge=3, le=50)
    """Length of the shared n-gram, in words."""

    def sources(self) -> tuple[str, ...]:
        """All that is read."""
        return (self.source, *self.decontaminate_against)


class SamplerSettings(ConfigModel):
    """How answers are generated."""

    engine: Literal["transformers", "vllm", "openai", "fake"] = "transformers"
    """What generates: in process (`transformers`, `vllm`), a server (`openai`), or a `fake`."""
    max_new_tokens: int = Field(default=512, ge=2, le=32768)
    """Longest answer, in tokens; longer ones are cut off and counted as truncated."""
    max_prompt_tokens: int = Field(default=2048, ge=1, le=131072)
    """Prompts longer than this are rejected, never cut."""
    temperature: float = Field(default=1.0, gt=0, le=5)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling: smallest set of tokens with this probability."""
    dtype: NumberFormatChoice = "auto"
    """Number format of the weights; auto: bfloat16 where the hardware computes it natively. Of no
    effect where a server or a fake answers."""


class AdaptiveConfig(ConfigModel):
    """Two rounds of sampling: all responses only for prompts that a few show to be promising."""

    first_responses: int = Field(default=4, ge=2, le=255)
    """Responses per prompt in the first round, fewer than `num_responses`."""
    second_round_share: float = Field(default=0.25, gt=0, lt=1)
    """Share of the prompts that get the rest: those with the highest optimistic PVar."""


class SampleConfig(SamplerSettings):
    """How the policy answers training prompts."""

    num_responses: int = Field(default=8, ge=2, le=256)
    """Responses per prompt (K)."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the run; each shard derives its own from it."""
    adaptive: AdaptiveConfig | None = None
    """Sample in two rounds; None gives every prompt all responses."""

    @model_validator(mode="after")
    def _rounds_fit(self) -> Self:
        if self.adaptive and self.adaptive.first_responses >= self.num_responses:
            raise ValueError(
                f"adaptive.first_responses is {self.adaptive.first_responses} and num_responses "
                f"is {self.num_responses}: nothing is left for the second round; lower the first"
            )
        return self

    @property
    def sampler_settings(self) -> SamplerSettings:
        """How one answer is generated, without how many."""
        shared = set(SamplerSettings.model_fields)
        return SamplerSettings.model_validate(self.model_dump(include=shared))


class ScoreConfig(ConfigModel):
    """Which reward models score the responses."""

    reward_models: tuple[RewardModelConfig, ...] = Field(default=(VaderReward(),), min_length=1)
    """Each is an artifact of its own: adding one does not score the others again."""

    @field_validator("reward_models")
    @classmethod
    def _names_differ(cls, models: tuple[RewardModelConfig, ...]) -> tuple[RewardModelConfig, ...]:
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ValueError(f"reward models share a name: {names}; give each its own `name`")
        return models


class LoraAdapter(ConfigModel):
    """Low-rank adapters on all linear layers instead of full training."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank r of the adapters."""
    alpha: int = Field(default=32, ge=1)
    """Scale: updates are multiplied by alpha / rank."""
    dropout: float = Field(default=0, ge=0, lt=1)
    """Dropout on the adapters' input."""
    keep_adapter: bool = False
    """Keep the adapters by themselves too, beside the model that they are merged into."""


TrainingMethod = Literal["dpo", "ipo", "kto", "simpo", "orpo"]


class TrainConfig(ConfigModel):
    """Preference optimisation with TRL."""

    method: TrainingMethod = "dpo"
    """Loss. dpo, ipo and kto are relative to the starting policy, simpo and orpo have no reference.
    kto takes pairs apart, always in the same order (by a hash of the prompt)."""
    beta: float = Field(default=0.1, gt=0)
    """Scale β of the rewards, for dpo, ipo and kto the strength of the pull towards the reference.
    simpo wants 2 to 10; of orpo it is the weight λ of the odds ratio."""
    simpo_gamma: float | None = Field(default=None, ge=0)
    """SimPO's target margin γ between the rewards (0.5 to 1.5 in the paper); simpo needs it."""
    learning_rate: float = Field(default=5e-7, gt=0, lt=1)
    """Peak learning rate. Full training wants about 5e-7, LoRA 5e-6 to 5e-4."""
    num_epochs: int = Field(default=1, ge=1, le=100)
    """Passes over the pairs."""
    pairs_per_step: int = Field(default=8, ge=1)
    """Pairs per optimiser step, over all devices (the global batch). An epoch's last step is filled
    up with pairs of its beginning."""
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    lr_schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """Shape of the learning rate after warm-up."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    max_length_tokens: int = Field(default=2048, ge=8)
    """Pairs with a longer prompt plus answer are left out and counted, never cut."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """bfloat16 (auto: where the hardware computes it natively): float32 weights under autocast, or
    with LoRA a bfloat16 base and float32 adapters. Weights that learn are always float32."""
    lora: LoraAdapter | None = None
    """Adapters to train; None trains all weights."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the data order and of the adapters."""

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        if (self.method == "simpo") != (self.simpo_gamma is not None):
            raise ValueError(
                f"method is {self.method} and simpo_gamma is {self.simpo_gamma}; method simpo "
                "needs its target margin simpo_gamma (0.5 is usual), and no other takes one"
            )
        if self.method == "kto" and self.pairs_per_step < 2:
            raise ValueError(
                "method is kto and pairs_per_step is 1: its estimate of the divergence needs "
                "answers to other prompts in the batch; raise pairs_per_step"
            )
        return self


class EvaluateConfig(ConfigModel):
    """How the trained model is compared with its opponent on held-out prompts."""

    judge: JudgeConfig = Field(default=AfinnJudge())
    """Who decides which answer is better."""
    judge_orders: Literal["both", "seeded"] = "both"
    """Every pair in both orders, or in one drawn by a coin (half the cost)."""
    allow_circular_judge: bool = False
    """Accept a judge that is also a reward model of the selection; the report says so."""
    opponent: ModelReference = "champion"
    """`champion` (the promoted model; the starting policy while there is none) or a model."""
    answers: SamplerSettings = SamplerSettings(temperature=0.7)
    """How both models answer the evaluation prompts."""
    num_answers: int = Field(default=1, ge=1, le=64)
    """Answers per prompt and model; more make the interval narrower."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Seed of answers and of the bootstrap."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""


USUAL_MAX_ABILITY_LOSS = 0.2
"""Bound where the source has ability questions and the gate names none: it stops a collapse."""


class PromoteConfig(ConfigModel):
    """The gate, and the name under which models are registered."""

    model_name: Name = "pvar"
    """Registered model in MLflow."""
    min_win_rate: float = Field(default=0.5, ge=0, lt=1)
    """The lower bound of the paired win rate must be above this."""
    min_coverage: float = Field(default=0.95, gt=0, le=1)
    """Share of the prompts that must have a verdict."""
    min_ended_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the challenger's answers that must end by themselves."""
    max_ability_loss: float | None = Field(default=None, ge=0, le=1)
    """Loss of ability (share of questions answered right) that must be ruled out: the lower end of
    the change must be at least minus this. None takes 0.2 where the source has rows with `answer`,
    and checks nothing where it has none; a number fails where it has none."""
    mode: Literal["automatic", "approval", "never"] = "automatic"
    """What happens when the gate passes: automatic moves the alias, approval waits for a person,
    never only registers."""


class RuntimeConfig(ConfigModel):
    """How and where stages run: nothing here changes an artifact's identity."""

    sampled_responses_per_shard: int = Field(default=512, ge=1)
    """Responses sampled between two writes, at least one prompt's: what a crash can cost."""
    responses_per_shard: int = Field(default=4096, ge=1)
    """Responses that are scored between two writes."""
    sequences_per_batch: int = Field(default=128, ge=1)
    """Sequences generated at once (transformers engine)."""
    sampler_max_in_flight: int = Field(default=32, ge=1, le=1024)
    """Prompts that are with the policy's server at the same time (openai engine)."""
    vllm: VllmConfig = VllmConfig()
    """How vLLM spreads a model and what memory it takes."""
    scoring_backend: Literal["transformers", "vllm"] = "transformers"
    """What runs reward models of kind classifier: vllm for one-logit ones that are large."""
    score_tokens_per_batch: int | None = Field(default=None, ge=64)
    """Padded tokens of one scoring batch; halved when memory runs out. None: the device decides."""
    pairs_per_device: int = Field(default=4, ge=1)
    """Pairs in memory of one device at once; pairs_per_step is reached by accumulation."""
    num_processes: int = Field(default=1, ge=1, le=64)
    """Processes that train together on this machine, one per GPU."""
    sharding: Literal["fsdp", "deepspeed"] | None = None
    """How the weights are spread over the GPUs that train; None: each holds all of them."""
    checkpoint_steps: int = Field(default=50, ge=1)
    """Optimiser steps between checkpoints: what a crash can cost."""
    judge_max_in_flight: int = Field(default=8, ge=1, le=256)
    """Calls to the judge's server at the same time."""
    judge_timeout_seconds: float = Field(default=120, gt=0)
    """A judge's server that is silent for so long has timed out."""
    judge_max_attempts: int = Field(default=6, ge=1, le=20)
    """Requests for one reply before its verdict is missing."""
    judge_max_calls: int | None = Field(default=None, ge=0)
    """Calls that one run may make; the next run goes on from there."""
    judge_max_usd: float | None = Field(default=None, ge=0)
    """Money that one run may spend; needs the prices below."""
    judge_usd_per_million_prompt_tokens: float | None = Field(default=None, ge=0)
    """Price of what the judge reads."""
    judge_usd_per_million_completion_tokens: float | None = Field(default=None, ge=0)
    """Price of what the judge writes."""
    lease_seconds: float = Field(default=60, ge=5)
    """A worker that is silent for so long is thought dead and its shard is taken over."""
    placement: PlacementConfig = PlacementConfig()
    """Which stages run as runs of their own, on which work pool."""


class PipelineConfig(ConfigModel):
    """Everything that a run is made of."""

    policy: ModelReference = "bundled:smollm2-135m-instruct"
    """The model to improve: it answers the prompts and is the start of training."""
    ingest: IngestConfig = IngestConfig()
    sample: SampleConfig = SampleConfig()
    score: ScoreConfig = ScoreConfig()
    select: SelectConfig = SelectConfig()
    pair: PairConfig = PairConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if self.train.max_length_tokens < self.sample.max_new_tokens:
            raise ValueError(
                f"train.max_length_tokens is {self.train.max_length_tokens}, but answers have up "
                f"to sample.max_new_tokens = {self.sample.max_new_tokens} tokens: every long pair "
                "would be left out; raise the first or lower the second"
            )
        self._refuse_uneven_batches()
        self._refuse_measure_without_models()
        if self.sample.adaptive and not STRATEGIES[self.select.strategy].wants_high_pvar:
            usable = ", ".join(name for name, each in STRATEGIES.items() if each.wants_high_pvar)
            raise ValueError(
                f"select.strategy is {self.select.strategy}, but sample.adaptive answers only what "
                f"a first round shows to be promising: use a strategy that takes the highest PVar "
                f"({usable}), or sample.adaptive null"
            )
        refuse_circular_judge(
            self.evaluate.judge,
            self.score.reward_models,
            allowed=self.evaluate.allow_circular_judge,
        )
        return self

    @property
    def implicit_model(self) -> str | None:
        """Name of the reward model that only the implicit gap is measured by."""
        if STRATEGIES[self.select.strategy].measure is not IMPLICIT_GAP:
            return None
        return next(each.name for each in self.score.reward_models if each.kind == "implicit")

    def _refuse_measure_without_models(self) -> None:
        strategy, kinds = self.select.strategy, [each.kind for each in self.score.reward_models]
        measure = STRATEGIES[strategy].measure
        if len(kinds) < measure.min_models:
            raise ValueError(
                f"select.strategy is {strategy}, which needs {measure.min_models} reward models or "
                f"more, but score.reward_models has {len(kinds)}; add another"
            )
        if measure is not IMPLICIT_GAP:
            return
        if kinds.count("implicit") != 1 or len(kinds) < 2:
            raise ValueError(
                f"select.strategy is {strategy} and score.reward_models are {', '.join(kinds)}; it "
                "needs one of kind implicit, for the gap, and another one, which says what is "
                "chosen and what rejected"
            )
        if self.pair.rule == "original":
            raise ValueError(
                f"select.strategy is {strategy} and pair.rule is original: annotated answers are "
                "not scored, so they have no gap; use pairs of sampled answers (best_worst)"
            )

    def _refuse_uneven_batches(self) -> None:
        per_step, runtime = self.train.pairs_per_step, self.runtime
        at_once = runtime.pairs_per_device * runtime.num_processes
        if per_step % at_once:
            raise ValueError(
                f"train.pairs_per_step ({per_step}) is not a multiple of runtime.pairs_per_device "
                f"({runtime.pairs_per_device}) times runtime.num_processes "
                f"({runtime.num_processes})"
            )
        if self.train.method == "kto" and per_step != at_once:
            raise ValueError(
                f"train.method is kto, which estimates its divergence over all pairs of a step at "
                f"once: train.pairs_per_step ({per_step}) must be runtime.pairs_per_device "
                f"({runtime.pairs_per_device}) times runtime.num_processes "
                f"({runtime.num_processes})"
            )
