"""The configuration tree: the flow parameter, the YAML preset and the CLI options.

Each stage has one model, which holds the settings that determine the stage's result (its identity).
`runtime` holds how and where stages run and enters no digest. Endpoints and secrets come from the
environment (`infra/settings.py`). Field docstrings are the help texts of the Prefect form and CLI.

A model reference is a string: `bundled:smollm2-135m-instruct`, a Hub id `org/name[@revision]`, a
path (`/…`, `./…`, `file://…`), `s3://bucket/prefix`, or MLflow's `models:/name@alias` and
`models:/name/3`. References are pinned before a run (`infra/models.py`): an alias becomes a
version, and `#digest` is appended. Only that digest enters artifact digests.
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from pvar.annotation_queue import MIN_FOR_BOUND
from pvar.benchmark_config import BenchmarkConfig, BenchmarkedModel
from pvar.circular_judge import refuse_circular_judge
from pvar.config_model import ConfigModel
from pvar.evaluate_config import EvaluateConfig, PromoteConfig
from pvar.label_audit_config import LabelAuditConfig
from pvar.model_roles import ModelRoles, model_roles, refuse_unfit_models
from pvar.references import CHAMPION, DataReference, ModelReference, is_pinned
from pvar.reward_config import RewardModelConfig, VaderReward
from pvar.reward_training import RewardTrainingConfig, refuse_unfit_reward_training
from pvar.runtime_config import JUDGE_KEY, REWARD_KEY, RuntimeConfig
from pvar.sampler_config import SamplerSettings
from pvar.selection import MEASURES, STRATEGIES
from pvar.selection_config import AnnotateConfig, PairConfig, SelectConfig
from pvar.source_columns import SourceColumns
from pvar.source_forms import SourceFormat
from pvar.train_config import TrainConfig


class IngestConfig(ConfigModel):
    """Where prompts come from, and how they are filtered and split."""

    source: DataReference = "bundled:sentiment"
    """A JSONL, Parquet or CSV file (path or s3://), `hub:org/name[:split]` or
    `hub:org/name:configuration:split`, `bundled:sentiment`, `bundled:mixed` or `bundled:annotated`
    (pvar/data/README.md). Rows are prompts or preferences in TRL's standard or conversational
    format, or in another one (docs/data.md). A row with `answer` (a string, or a list of accepted
    strings) is an ability question. It is always held out, and its answers are compared with
    `answer` instead of judged."""
    format: SourceFormat = "auto"
    """The form of the rows of `source` (docs/data.md). `auto` recognises it row by row, and rejects
    a row that could be read in two forms. `pvar ingest-check` shows what is recognised."""
    columns: SourceColumns = SourceColumns()
    """Names of the columns of `source`, where they are not those that are read: with `{prompt:
    question}` the column question is the prompt. A row without the column is read as it is."""
    source_field: str | None = None
    """Field of a row that names where its prompt is from, such as `source` in UltraFeedback, here
    and in `evaluate.prompts`. The report shows selection and win rate by it. `null`, or a row
    without it: the name of the file."""
    join_labels: bool = False
    """Join rows with `completion` and `label` (TRL's unpaired preference) to labelled pairs: a good
    and a bad answer to one prompt. `false`: such a row is a prompt, and its label is not used."""
    eval_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Fraction of the prompts held out for evaluation, chosen by a hash of the prompt id."""
    near_duplicate_similarity: float | None = Field(default=0.8, gt=0, le=1)
    """Drop a prompt if its Jaccard similarity to another prompt, of their character 5-grams, is at
    least this value. `null` keeps near-duplicates. Exact duplicates are always dropped."""
    strict_below_words: int = Field(default=40, ge=0)
    """A prompt of fewer words is a near-duplicate only of those with the same words: in a short
    prompt, another word or number asks for something else. `0` compares all prompts by similarity
    alone, as was done before this setting, and so finds artifacts of that time again."""
    decontaminate_against: tuple[DataReference, ...] = ()
    """Files of evaluation prompts. Training prompts that share an n-gram with any of them are
    dropped."""
    decontaminate_ngram_words: int = Field(default=13, ge=3, le=50)
    """Length of the shared n-gram, in words."""
    withdrawn: tuple[str, ...] = ()
    """Ids of prompts of the source that are left out. A run adds those of its source that `pvar
    forget` withdrew in its store."""


class AdaptiveConfig(ConfigModel):
    """Two rounds of sampling: only promising prompts get all `num_responses` responses."""

    first_responses: int = Field(default=4, ge=2, le=255)
    """Responses per prompt in the first round. Must be fewer than `num_responses`."""
    second_round_share: float = Field(default=0.25, gt=0, lt=1)
    """Fraction of the prompts that get the remaining responses: those with the highest upper
    confidence bound of PVar."""


class SampleConfig(SamplerSettings):
    """How the policy generates responses to the training prompts, or which ones the data holds."""

    # One more than for answers to evaluation prompts, which the data does not hold.
    engine: Literal["transformers", "vllm", "openai", "fake", "dataset"] = "transformers"  # type: ignore[assignment]
    """Generation engine: in process (`transformers`, `vllm`), an OpenAI-compatible server
    (`openai`), or `fake` for trying out the workflow. `dataset` samples nothing: the responses are
    the answers that ingest.source holds for its prompts, and all other keys of sample have no
    effect."""
    num_responses: int = Field(default=8, ge=2, le=256)
    """Responses per prompt (K)."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Random seed. Each shard derives its own seed from it."""
    adaptive: AdaptiveConfig | None = None
    """Sample in two rounds. `null` gives every prompt all responses in one round."""

    @model_validator(mode="after")
    def _rounds_fit(self) -> Self:
        if self.adaptive and self.adaptive.first_responses >= self.num_responses:
            raise ValueError(
                f"sample.adaptive.first_responses ({self.adaptive.first_responses}) must be less "
                f"than sample.num_responses ({self.num_responses}); lower the first or raise the "
                "second"
            )
        return self

    @model_validator(mode="after")
    def _dataset_has_one_round(self) -> Self:
        if self.engine == "dataset" and self.adaptive:
            raise ValueError(
                "sample.engine is dataset, whose answers exist already, but sample.adaptive "
                "samples in two rounds; set sample.adaptive to null"
            )
        return self

    @property
    def sampler_settings(self) -> SamplerSettings:
        """The settings that generate one response, without the number of responses."""
        shared = set(SamplerSettings.model_fields)
        return SamplerSettings.model_validate(self.model_dump(include=shared))


class ScoreConfig(ConfigModel):
    """Which reward models score the responses."""

    reward_models: tuple[RewardModelConfig, ...] = Field(default=(VaderReward(),), min_length=1)
    """Reward models. Each has its own artifact, so adding one does not rescore the others."""

    @field_validator("reward_models")
    @classmethod
    def _names_differ(cls, models: tuple[RewardModelConfig, ...]) -> tuple[RewardModelConfig, ...]:
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise ValueError(
                f"score.reward_models have duplicate names: {', '.join(names)}; give each reward "
                "model a unique `name`"
            )
        return models


EXAM_NAME = "evaluate.prompts"
"""Name of the exam of `evaluate.prompts` among the exams that exclude training prompts."""
RESERVE_NAME = "evaluate.reserve_prompts"
"""Name of the exam of that key among them."""


def _is_named(tree: Mapping[str, object], key: str) -> bool:
    stage, name = key.split(".")
    settings = tree.get(stage, {})
    if isinstance(settings, BaseModel):
        return name in settings.model_fields_set
    return isinstance(settings, Mapping) and name in settings


class PipelineConfig(ConfigModel):
    """The configuration of one pipeline run."""

    policy: ModelReference = "bundled:smollm2-135m-instruct"
    """The model to improve. It generates the responses, and training starts from it. `champion` is
    the promoted model, so that each training continues from the last promoted one."""
    policy_if_none: ModelReference | None = None
    """The first model: the model to improve if `policy` is `champion` and no model is promoted.
    Required with `policy: champion`, and `null` otherwise."""
    ingest: IngestConfig = IngestConfig()
    """Stage ingest: read, filter and split the prompts."""
    sample: SampleConfig = SampleConfig()
    """Stage sample: generate responses with the policy."""
    score: ScoreConfig = ScoreConfig()
    """Stage score: score the responses with reward models."""
    select: SelectConfig = SelectConfig()
    """Stage select: choose the prompts to train on."""
    annotate: AnnotateConfig | None = None
    """Stage annotate: ask people about pairs of the selected prompts, and wait for their answers,
    which label these prompts. Stage pair makes the pairs of all others. `null` asks nobody."""
    pair: PairConfig = PairConfig()
    """Stage pair: make chosen/rejected pairs from the responses."""
    train: TrainConfig = TrainConfig()
    """Stage train: train the policy on the pairs."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Stage evaluate: compare the trained model with its opponent."""
    promote: PromoteConfig = PromoteConfig()
    """Stage promote: check the gate, register the model and move the alias."""
    benchmarks: tuple[BenchmarkConfig, ...] = ()
    """Benchmarks that the trained model and its opponent take (docs/benchmarks.md)."""
    benchmark_models: tuple[BenchmarkedModel, ...] = ()
    """Further models that take the benchmarks."""
    reward_training: RewardTrainingConfig | None = None
    """Stages reward and adopt: train a reward model on the labels of the data, and let it pass a
    gate of its own (docs/retraining.md). `null`: none is trained."""
    label_audit: LabelAuditConfig | None = None
    """Ask models whether they agree with the labels of the source, before anything is trained on
    them (docs/retraining.md). `null` asks nobody. It changes no other stage's result."""
    runtime: RuntimeConfig = RuntimeConfig()
    """How and where the stages run."""

    @model_validator(mode="before")
    @classmethod
    def _note_unnamed(cls, tree: object) -> object:
        """Note which stand-ins nobody chose, as long as it can be seen."""
        if not isinstance(tree, Mapping):
            return tree
        runtime = tree.get("runtime", {})
        given = runtime.model_dump() if isinstance(runtime, RuntimeConfig) else runtime
        if not isinstance(given, Mapping):
            return tree
        noted = given.get("unnamed", ())
        unnamed = [key for key in (REWARD_KEY, JUDGE_KEY) if not _is_named(tree, key)]
        if not (unnamed and isinstance(noted, list | tuple)):
            return tree
        return {**tree, "runtime": {**given, "unnamed": (*noted, *set(unnamed).difference(noted))}}

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        is_sampled = self.sample.engine != "dataset"
        if is_sampled and self.train.max_length_tokens < self.sample.max_new_tokens:
            raise ValueError(
                f"train.max_length_tokens ({self.train.max_length_tokens}) is less than "
                f"sample.max_new_tokens ({self.sample.max_new_tokens}), so pairs with long "
                "responses would be dropped; raise the first or lower the second"
            )
        self._refuse_uneven_batches()
        dataset = [model.name for model in self.score.reward_models if model.kind == "dataset"]
        if dataset and is_sampled:
            raise ValueError(
                f"reward model {dataset[0]} is of kind dataset, which has scores for the answers "
                f"of the data only, but sample.engine is {self.sample.engine}; set sample.engine "
                "to dataset, or use a reward model of another kind"
            )
        refuse_unfit_models(self.score.reward_models, self.select, self.pair)
        refuse_unfit_reward_training(self.reward_training, self.score.reward_models, self.runtime)
        if self.sample.adaptive and not STRATEGIES[self.select.strategy].wants_high_pvar:
            usable = ", ".join(
                name for name, strategy in STRATEGIES.items() if strategy.wants_high_pvar
            )
            raise ValueError(
                f"select.strategy is {self.select.strategy}, but sample.adaptive gives all "
                "responses only to prompts with a high PVar; use a strategy that selects those "
                f"({usable}), or set sample.adaptive to null"
            )
        refuse_circular_judge(
            self.evaluate.judge,
            self.score.reward_models,
            allowed=self.evaluate.allow_circular_judge,
        )
        self._refuse_unknown_benchmarks()
        self._refuse_margins_without_pairs()
        self._refuse_unfit_measure()
        self._refuse_second_exam()
        self._refuse_unknown_first_model()
        return self

    @property
    def first_model(self) -> str:
        """The model from which the first training starts. Later ones may start from a champion."""
        return self.policy if self.policy_if_none is None else self.policy_if_none

    @property
    def model_roles(self) -> ModelRoles:
        """Which reward models select prompts, and which label answers."""
        return model_roles(self.score.reward_models, self.select, self.pair)

    def _refuse_margins_without_pairs(self) -> None:
        sampled = self.sample.engine != "dataset"
        if self.evaluate.margins and not (sampled and self.model_roles.labelling):
            raise ValueError(
                "evaluate.margins is true, which needs responses to the held-out prompts and a "
                f"reward model that labels them, but sample.engine is {self.sample.engine} and "
                f"pair.rule is {self.pair.rule}; change these, or set evaluate.margins to false"
            )

    def _refuse_unfit_measure(self) -> None:
        if self.annotate is None:
            return
        sample = self.sample
        if (
            self.annotate.measure == "pvar_lower"
            and sample.engine != "dataset"
            and sample.num_responses < MIN_FOR_BOUND
        ):
            raise ValueError(
                f"annotate.measure is pvar_lower, which needs {MIN_FOR_BOUND} responses to a "
                f"prompt, but sample.num_responses is {sample.num_responses}; raise it, or set "
                "annotate.measure to pvar"
            )
        if self.annotate.measure not in MEASURES:
            return
        needed, num_models = (
            MEASURES[self.annotate.measure].min_models,
            len(self.model_roles.selecting),
        )
        if num_models < needed:
            raise ValueError(
                f"annotate.measure is {self.annotate.measure}, which compares {needed} reward "
                f"models, but {num_models} selects; add one, or set annotate.measure to pvar_lower"
            )

    def _refuse_unknown_benchmarks(self) -> None:
        names = [benchmark.name for benchmark in self.benchmarks]
        models = ["challenger", "opponent", *(model.name for model in self.benchmark_models)]
        for what, each in (("benchmarks", names), ("benchmark_models", models)):
            if twice := next((name for name in each if each.count(name) > 1), None):
                raise ValueError(
                    f"{what}: the name {twice!r} occurs twice (challenger and opponent are the "
                    "run's own models); give each a unique `name`"
                )
        self._refuse_equal_paths(names, models)
        required = [gate.name for gate in self.promote.benchmarks]
        taken = [name for model in self.benchmark_models for name in model.benchmarks]
        for key, each in (("promote.benchmarks", required), ("benchmark_models", taken)):
            if unknown := [name for name in each if name not in names]:
                raise ValueError(
                    f"{key}: there is no benchmark {unknown[0]!r}; benchmarks has "
                    f"{', '.join(names) or 'none'}"
                )

    def _refuse_unknown_first_model(self) -> None:
        starts_from_champion = self.policy == CHAMPION
        if starts_from_champion and self.policy_if_none is None:
            raise ValueError(
                "policy is champion, but policy_if_none does not say which model is improved while "
                "none is promoted; set policy_if_none to the first model"
            )
        # A pinned policy is what `champion` meant when the run began.
        if not (starts_from_champion or self.policy_if_none is None or is_pinned(self.policy)):
            raise ValueError(
                f"policy is {self.policy} and policy_if_none is {self.policy_if_none}, which is "
                "used with policy champion only; set policy to champion, or policy_if_none to null"
            )
        if self.promote.max_total_ability_loss is not None and not self.evaluate.against_first:
            raise ValueError(
                f"promote.max_total_ability_loss is {self.promote.max_total_ability_loss:g}, but "
                "evaluate.against_first is false, so that the trained model is not compared with "
                "the first one; set evaluate.against_first to true"
            )
        if self.promote.max_total_divergence is not None and not self.evaluate.divergence:
            raise ValueError(
                f"promote.max_total_divergence is {self.promote.max_total_divergence:g}, but "
                "evaluate.divergence is false, so that no divergence is estimated; set "
                "evaluate.divergence to true"
            )

    def _refuse_second_exam(self) -> None:
        exams = {EXAM_NAME: self.evaluate.prompts, RESERVE_NAME: self.evaluate.reserve_prompts}
        taken = {benchmark.name for benchmark in self.benchmarks}
        for name, prompts in exams.items():
            if prompts and name in taken:
                raise ValueError(
                    f"a benchmark is named {name}, which is the name of the exam of that key; "
                    "give the benchmark another `name`"
                )

    @staticmethod
    def _refuse_equal_paths(names: list[str], models: list[str]) -> None:
        """Nodes end with NAME or NAME-MODEL."""
        paths = {name: f"benchmark {name}" for name in names}
        for name in names:
            for model in models:
                path, this = f"{name}-{model}", f"benchmark {name} of model {model}"
                if path in paths:
                    raise ValueError(
                        f"{this} and {paths[path]} would both be named {path}; give one of them "
                        "another `name`"
                    )
                paths[path] = this

    def _refuse_uneven_batches(self) -> None:
        per_step, runtime = self.train.pairs_per_step, self.runtime
        at_once = runtime.pairs_per_device * runtime.num_processes
        if per_step % at_once:
            raise ValueError(
                f"train.pairs_per_step ({per_step}) is not a multiple of runtime.pairs_per_device "
                f"({runtime.pairs_per_device}) times runtime.num_processes "
                f"({runtime.num_processes}); change one of the three"
            )
        if self.train.method == "kto" and per_step != at_once:
            raise ValueError(
                f"train.method is kto, so train.pairs_per_step ({per_step}) must equal "
                f"runtime.pairs_per_device ({runtime.pairs_per_device}) times "
                f"runtime.num_processes ({runtime.num_processes}): KTO estimates its divergence "
                "over all pairs of a step at once; change one of the three"
            )
