"""How the trained model is compared with others, and what the gate requires of it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pvar.benchmark_config import BenchmarkGate
from pvar.config_model import ConfigModel, Name
from pvar.judge_config import AfinnJudge, JudgeConfig
from pvar.references import DataReference, ModelReference
from pvar.sampler_config import SamplerSettings


class EvaluateConfig(ConfigModel):
    """How the trained model is compared with its opponent on held-out prompts."""

    prompts: tuple[DataReference, ...] = ()
    """Files of evaluation prompts (the exam), in the forms of `ingest.source`. Rows with `answer`
    are ability questions. Training prompts that are among them, or nearly so, are never selected.
    All prompts of `ingest.source` are then for training (`ingest.eval_fraction` has no effect), and
    its ability questions are left out. Empty means the held-out prompts of `ingest.source`."""
    reserve_prompts: tuple[DataReference, ...] = ()
    """Files of the reserve exam, in the forms of `prompts`. No training prompt may be among them,
    as for `prompts`, and a run asks no model about them: `pvar audit` does, rarely. Empty means no
    reserve exam."""
    audited: ModelReference | None = None
    """The model that takes the reserve exam. `pvar audit` sets it to the champion."""
    withdrawn: tuple[str, ...] = ()
    """Ids of prompts of `evaluate.prompts`, and of the pairs of benchmarks of kind label_agreement,
    that are left out. A run adds those that `pvar forget` withdrew in its store."""
    judge: JudgeConfig = Field(default=AfinnJudge())
    """The judge, which decides which of two answers is better."""
    judge_orders: Literal["both", "seeded"] = "both"
    """`both` judges each pair of answers in both orders. `seeded` judges it in one order, drawn at
    random, at half the cost."""
    allow_circular_judge: bool = False
    """Allow a judge that is also a reward model that selects or labels. The report says so."""
    opponent: ModelReference = "champion"
    """A model, or `champion`: the promoted model, or the starting policy if none is promoted."""
    answers: SamplerSettings = SamplerSettings(temperature=0.7)
    """How both models generate answers to the evaluation prompts."""
    num_answers: int = Field(default=1, ge=1, le=64)
    """Answers per prompt and model. More answers give narrower intervals."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Seed of the answers and of the bootstrap."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence level of the intervals."""
    against_first: bool = False
    """Also compare the trained model with the first one (`policy_if_none`, or else `policy`) on the
    same prompts. The first model stays the same while champions change, so these results are a
    curve over all versions. Costs the judging of another answer per prompt."""
    divergence: bool = False
    """Also estimate the KL divergence of the trained model from the starting policy (with
    against_first: from the first model, too), on answers at temperature 1. Costs one more answer
    per held-out prompt and a forward pass of each model."""
    margins: bool = False
    """Also measure during training the implicit reward margin of held-out pairs, which nothing is
    trained on: the best and the worst of sample.num_responses responses of the policy to each
    held-out prompt, by the reward models that label. Costs these responses and their rewards, once
    for all trainings that share them, and five forward passes over the pairs in each training."""

    @model_validator(mode="after")
    def _audit_has_prompts(self) -> Self:
        if self.audited is not None and not self.reserve_prompts:
            raise ValueError(
                f"evaluate.audited is {self.audited}, but evaluate.reserve_prompts is empty, so "
                "that there is nothing to ask it; set evaluate.reserve_prompts, or "
                "evaluate.audited to null"
            )
        return self

    @model_validator(mode="after")
    def _divergence_has_models(self) -> Self:
        if self.divergence and self.answers.engine in ("fake", "openai"):
            raise ValueError(
                f"evaluate.divergence is true and evaluate.answers.engine is {self.answers.engine},"
                " whose answers are not those of the trained model's weights here; set the engine "
                "to transformers or vllm, or divergence to false"
            )
        return self


USUAL_MAX_ABILITY_LOSS = 0.2
"""Default of max_ability_loss if the source has ability questions. It catches a collapse."""


class PromoteConfig(ConfigModel):
    """The promotion gate, and the name under which models are registered."""

    model_name: Name = "pvar"
    """Name of the registered model in MLflow."""
    min_win_rate: float = Field(default=0.5, ge=0, lt=1)
    """The lower bound of the paired win rate must be above this value."""
    alpha_budget: float | None = Field(default=None, gt=0, lt=1)
    """Bound on the probability that any promotion since the exam was frozen is false, in that the
    win rate is not above `min_win_rate`. The i-th look at an exam tests at level
    alpha_budget · 6 / (π² i²), beside `evaluate.confidence`. Recommended for retraining (0.05).
    `null` tests every look as if it were the only one."""
    min_coverage: float = Field(default=0.95, gt=0, le=1)
    """Minimum fraction of the prompts that have a verdict."""
    min_ended_share: float = Field(default=0.0, ge=0, le=1)
    """Minimum fraction of the challenger's answers that finish (are not truncated)."""
    max_ability_loss: float | None = Field(default=None, ge=0, le=1)
    """Maximum loss of ability (fraction of ability questions answered correctly). The lower bound
    of the change must be at least minus this value. `null` means 0.2 if the source has rows with
    `answer`, and no check otherwise. A number fails the gate if the source has no such rows, or if
    the opponent answers so few correctly that a loss of all of them would pass. 1 allows every
    loss."""
    max_total_ability_loss: float | None = Field(default=None, ge=0, le=1)
    """Maximum loss of ability against the first model, so that many small losses are seen. The
    lower bound of the change must be at least minus this value. Needs `evaluate.against_first` and
    ability questions that the first model can answer. `null` means no check."""
    max_total_divergence: float | None = Field(default=None, gt=0)
    """Maximum KL divergence from the first model (`policy_if_none`, or else `policy`), in nats per
    answer. The upper bound of its interval must be at most this value. Needs `evaluate.divergence`,
    and costs a forward pass of the first model if the training started from another one. `null`
    means no check."""
    benchmarks: tuple[BenchmarkGate, ...] = ()
    """What the gate requires of benchmarks."""
    mode: Literal["automatic", "approval", "never"] = "automatic"
    """What follows a passed gate: `automatic` moves the alias, `approval` makes the run wait for a
    person's decision, `never` registers the model and leaves the alias."""
