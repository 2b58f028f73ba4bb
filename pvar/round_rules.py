"""Rounds: the pipeline again and again, each time from the promoted model, and when that ends.

A round samples from the champion of its time, selects, trains and passes or fails the gate. Its
responses are its own: the seed of sampling grows by one with each round. Otherwise a round after a
failed gate, which changes nothing, would be the same round once more.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pvar.config import PipelineConfig
from pvar.config_model import ConfigModel, Name
from pvar.errors import ConfigError
from pvar.pool_variance import PoolVariance
from pvar.references import CHAMPION, DataReference

NUM_SEEDS = 2**31


class RoundsConfig(ConfigModel):
    """How many rounds there are, of which prompts, and what ends them early."""

    name: Name | None = None
    """Name of the rounds, under which they go on. `null` means `promote.model_name`."""
    rounds: int = Field(default=3, ge=1, le=1000)
    """Maximum number of rounds, earlier ones of this name included."""
    batches: tuple[DataReference, ...] = ()
    """A source for each round, in the forms of `ingest.source`, in this order. Needs
    `evaluate.prompts`. Empty means that every round has the prompts of `ingest.source`."""
    max_failed_gates: int = Field(default=2, ge=1)
    """End after this many rounds in a row without a promotion: the gate failed, or a person
    declined the version or rolled it back before its round ended."""
    min_pvar_share: float | None = Field(default=None, ge=0, lt=1)
    """End when the mean PVar of the pool, with the reward scales of the first round, is below this
    share of the first round's: little is left to teach. 0 means only when there is none. `null`
    means 0.2 on one pool, and no bound with `batches`, whose pools differ."""
    max_kl: float | None = Field(default=None, gt=0)
    """End when the promoted model's KL divergence from the first model is above this value, in nats
    per answer. Needs `evaluate.divergence` and `evaluate.against_first`. `null` means no bound."""
    max_ability_loss: float | None = Field(default=None, ge=0, le=1)
    """End when the promoted model has lost more than this share of the ability questions against
    the first model. Needs `evaluate.against_first`. `null` means no bound."""
    pipeline: PipelineConfig = PipelineConfig()
    """The pipeline of each round. It starts from the champion; `policy_if_none`, or else `policy`,
    is the first model, from which it starts while none is promoted."""

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        if self.batches and self.rounds > len(self.batches):
            raise ValueError(
                f"rounds is {self.rounds}, but there are {len(self.batches)} batches; give one for "
                "each round, or fewer rounds"
            )
        if self.batches and not self.pipeline.evaluate.prompts:
            raise ValueError(
                "batches are given, but evaluate.prompts is empty, so every round would be "
                "measured on what its own batch holds out; set evaluate.prompts to the files of an "
                "exam that is the same for all rounds"
            )
        return self

    @model_validator(mode="after")
    def _bounds_are_measured(self) -> Self:
        evaluate = self.pipeline.evaluate
        needed = {
            "max_kl": {"divergence": evaluate.divergence, "against_first": evaluate.against_first},
            "max_ability_loss": {"against_first": evaluate.against_first},
        }
        for key, settings in needed.items():
            missing = [f"evaluate.{name}=true" for name, is_set in settings.items() if not is_set]
            if getattr(self, key) is not None and missing:
                raise ValueError(
                    f"{key} is {getattr(self, key):g}, which is compared with the first model; set "
                    f"{' and '.join(missing)}, or leave {key} out"
                )
        return self

    @property
    def series(self) -> str:
        """Name of the rounds."""
        return self.name or self.pipeline.promote.model_name

    @property
    def pvar_bound(self) -> float | None:
        """The share of the first round's PVar below which the rounds end; None for no bound."""
        if self.min_pvar_share is None:
            return None if self.batches else 0.2
        return self.min_pvar_share


def refuse_unfit_rounds(pipeline: PipelineConfig) -> None:
    """Raise ConfigError for a pipeline of which a second round would not follow from the first."""
    opponent, promote = pipeline.evaluate.opponent, pipeline.promote
    if promote.mode == "never":
        raise ConfigError(
            "promote.mode is never, so no model is promoted and every round would start from the "
            "same model; set promote.mode to automatic or approval"
        )
    if opponent not in (CHAMPION, f"models:/{promote.model_name}@{CHAMPION}"):
        raise ConfigError(
            f"evaluate.opponent is {opponent}, but a version replaces only the champion that it "
            "was compared with, so nothing would be promoted after the first round; set "
            "evaluate.opponent=champion (with evaluate.against_first=true each version is compared "
            "with the first model, too)"
        )
    if pipeline.sample.engine == "dataset":
        raise ConfigError(
            "sample.engine is dataset, whose answers no model of a later round has given; use an "
            "engine that samples"
        )
    if pipeline.reward_training is not None:
        raise ConfigError(
            "reward_training is set, so later rounds would be scored by another reward model, and "
            "their PVar would not be comparable with the first round's; set it to null"
        )


def round_settings(config: RoundsConfig, number: int) -> PipelineConfig:
    """The pipeline of a round (1 is the first): from the champion, on its source, with its seed."""
    pipeline = config.pipeline
    source = config.batches[number - 1] if config.batches else pipeline.ingest.source
    seed = (pipeline.sample.seed + number - 1) % NUM_SEEDS
    return pipeline.model_copy(
        update={
            "policy": CHAMPION,
            "policy_if_none": pipeline.first_model,
            "ingest": pipeline.ingest.model_copy(update={"source": source}),
            "sample": pipeline.sample.model_copy(update={"seed": seed}),
        }
    )


class RoundResult(BaseModel):
    """The figures of a round that has ended. What was not measured is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    run: str
    """The run of the pipeline that ended it."""
    start: str
    """The model from which it started: the champion when it began, or the first model."""
    source: str
    pool: PoolVariance
    """PVar of the training prompts, by responses of the model from which it started."""
    num_selected: int
    pvar_mean_selected: float | None
    win_rate: float | None
    """Against the champion when it began."""
    win_rate_lower: float | None
    win_rate_upper: float | None
    first_win_rate: float | None
    """Against the first model."""
    first_win_rate_lower: float | None
    first_win_rate_upper: float | None
    ability: float | None
    """Share of the ability questions answered correctly."""
    ability_change_since_first: float | None
    """In [−1, 1]."""
    kl_since_first: float | None
    """KL divergence from the first model, in nats per answer."""
    gate_passed: bool
    promoted: bool
    """Whether its version was promoted, and still the champion when the round ended."""
    replaced: bool = False
    """Whether its version was promoted, but not the champion any more when the round ended: after a
    rollback, or another promotion."""
    version: int
    seconds: float
    """Of the stages in its run. What an interrupted run had made before is not in it."""

    @property
    def fate(self) -> Literal["promoted", "replaced", "declined", "failed"]:
        """What became of its version: a person may decline one that passed the gate."""
        if self.promoted or self.replaced:
            return "promoted" if self.promoted else "replaced"
        return "declined" if self.gate_passed else "failed"


EndRule = Literal["failed_gates", "pvar", "kl", "ability", "rounds"]


class RoundsEnd(NamedTuple):
    """Why no further round begins."""

    rule: EndRule
    sentence: str


class RoundsResult(BaseModel):
    """The rounds so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model_name: str
    rounds: tuple[RoundResult, ...]
    """Those that have ended, in order."""
    end: RoundsEnd | None = None
    """None if more rounds follow."""
    waiting: str | None = None
    """What the round after these waits for, and how to go on; None if it does not wait."""


def reason_to_end(results: Sequence[RoundResult], config: RoundsConfig) -> RoundsEnd | None:
    """Why no further round begins after these; None if one does.

    A bound on something that was not measured ends the rounds, too.
    """
    if not results:
        return None
    rules = (_failed_gates, _little_variance, _far_from_first, _lost_ability, _all_rounds)
    return next((end for rule in rules if (end := rule(results, config)) is not None), None)


def _failed_gates(results: Sequence[RoundResult], config: RoundsConfig) -> RoundsEnd | None:
    last = results[-config.max_failed_gates :]
    if len(last) < config.max_failed_gates or any(each.promoted for each in last):
        return None
    numbers = ", ".join(str(each.number) for each in last)
    return RoundsEnd(
        "failed_gates",
        f"no model was promoted in {len(last)} rounds in a row ({numbers}), max_failed_gates is "
        f"{config.max_failed_gates}",
    )


def _little_variance(results: Sequence[RoundResult], config: RoundsConfig) -> RoundsEnd | None:
    first, last = results[0].pool.mean, results[-1].pool.mean
    bound = config.pvar_bound
    if bound is None:
        return None
    if not last or not first:
        what = "no prompt of the pool has a PVar" if last is None else "PVar of every prompt is 0"
        return RoundsEnd("pvar", f"{what}, so there is nothing to teach")
    if last / first >= bound:
        return None
    return RoundsEnd(
        "pvar",
        f"the mean PVar of the pool is {last:.3g}, {last / first:.1%} of the first round's "
        f"{first:.3g}, min_pvar_share is {bound:g}: little is left to teach",
    )


def _far_from_first(results: Sequence[RoundResult], config: RoundsConfig) -> RoundsEnd | None:
    last, bound = results[-1], config.max_kl
    if bound is None or not last.promoted:
        return None
    if last.kl_since_first is None:
        return RoundsEnd("kl", f"the KL divergence was not measured, but max_kl is {bound:g}")
    if last.kl_since_first <= bound:
        return None
    return RoundsEnd(
        "kl",
        f"version {last.version} diverges from the first model by {last.kl_since_first:.3g} nats "
        f"per answer, max_kl is {bound:g}",
    )


def _lost_ability(results: Sequence[RoundResult], config: RoundsConfig) -> RoundsEnd | None:
    last, bound = results[-1], config.max_ability_loss
    if bound is None or not last.promoted:
        return None
    change = last.ability_change_since_first
    if change is None:
        return RoundsEnd(
            "ability",
            "ability was not measured (no ability question was answered by both models), but "
            f"max_ability_loss is {bound:g}",
        )
    if change >= -bound:
        first = None if last.ability is None else last.ability - change
        if first is None or first > bound or bound >= 1:
            return None
        return RoundsEnd(
            "ability",
            f"ability is not measurable: the first model answers {first:.1%} of the ability "
            f"questions correctly, so that no loss exceeds max_ability_loss, which is {bound:g}; "
            "check the accepted answers, or ask questions that it can answer",
        )
    return RoundsEnd(
        "ability",
        f"version {last.version} answers {-change:.1%} fewer of the ability questions correctly "
        f"than the first model, max_ability_loss is {bound:g}",
    )


def _all_rounds(results: Sequence[RoundResult], config: RoundsConfig) -> RoundsEnd | None:
    if len(results) < config.rounds:
        return None
    return RoundsEnd("rounds", f"{len(results)} rounds have ended, rounds is {config.rounds}")
