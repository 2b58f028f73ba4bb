"""What the report of a run is made of. Every part may be missing: a run can fail or stop early.

A missing part is None or empty, a missing number None or NaN; neither is ever shown as zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.records import Message
from tasks.engine.tables import TrainStep
from tasks.stages.evaluate import ABILITY_FIGURES


class Setting(NamedTuple):
    """One value of the configuration that differs from the default."""

    name: str
    """Dotted path in the configuration, for example `select.strategy`."""
    value: str


class RewardScale(NamedTuple):
    """How one reward model's differences became probabilities."""

    name: str
    reward_scale: float | None
    """τ in σ((r_i − r_j)/τ)."""
    saturation_share: float | None
    """Share of response pairs with |p − ½| > 0.49."""


class ScoredResponse(NamedTuple):
    """A sampled answer and its reward."""

    text: str
    reward: float | None
    role: Literal["chosen", "rejected"] | None = None
    """Its part in the training pair, if it has one."""


class AnswerFigures(NamedTuple):
    """How one model answered the evaluation prompts."""

    mean_tokens: float | None
    ended_share: float | None
    """Share of answers that the model ended by itself, in [0, 1]."""


class Ability(NamedTuple):
    """Shares of the ability questions that both models answered right, and their difference."""

    after: float | None
    """The new model's, in [0, 1]."""
    before: float | None
    """The opponent's."""
    change: float | None
    """New model minus opponent, in [−1, 1]."""
    ci_lower: float | None
    ci_upper: float | None
    num_questions: int
    """Questions that both models answered."""


class Counts(NamedTuple):
    """Judged comparisons by their end, as seen from the new model."""

    won: int
    tied: int
    lost: int


class AnswerSample(NamedTuple):
    """Both models' answers to one evaluation prompt."""

    messages: tuple[Message, ...]
    before: str
    """The opponent's answer."""
    after: str
    """The new model's answer."""
    preference: float | None
    """Probability in [0, 1] that `after` is better; ½ is a tie; None is not judged."""


class GateCheck(NamedTuple):
    """One condition of a promotion; value and bound are shares in [0, 1]."""

    check: str
    """What must hold of the bound: `lower end of the win rate, above`."""
    value: float | None
    bound: float | None
    passed: bool


class NamedLink(NamedTuple):
    """A place to go on to: made clickable if it is an http, https or file address."""

    label: str
    target: str


class Failure(NamedTuple):
    """Why the run ended before its last stage."""

    stage: str
    message: str


class WaitingStage(NamedTuple):
    """What the run waits for, neither successful nor failed."""

    what: str
    how_to_go_on: str


@dataclass(frozen=True)
class StageRow:
    """What became of one stage of the run."""

    node: str
    """Name in the run, for example `score-vader`; a stage can appear more than once."""
    stage: str
    artifact: str | None
    """`stage/digest` of what it made; None if the run did not get there."""
    rows_in: int | None = None
    rows_out: int | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Reason → rows that did not go on."""
    seconds: float | None = None
    waits_for: str | None = None
    """What is missing, of a stage that waits."""
    reused: bool | None = None
    """The artifact was there before this run."""
    figures: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)
    """The manifest's summary."""


@dataclass(frozen=True)
class PvarDistribution:
    """PVar of all P training prompts and what was selected by it."""

    pvar: NDArray[np.float64]
    """(P,), NaN for prompts without one."""
    selected: NDArray[np.bool_]
    """(P,)."""
    cut: float | None
    """Least or largest PVar that was taken; None for a strategy that does not cut by PVar."""
    strategy: str
    num_tied_at_cut: int | None
    """Prompts with exactly the PVar of the cut; 1 is the last one taken."""
    scales: tuple[RewardScale, ...] = ()


class Correlation(NamedTuple):
    """How PVar goes with another measure of the same prompts."""

    measure: str
    spearman: float | None
    """Rank correlation ρ, in [−1, 1]; None where a measure is constant."""
    ci_lower: float | None
    ci_upper: float | None
    """Its 95 % interval."""
    pearson: float | None
    num_prompts: int
    """Prompts with both measures."""


@dataclass(frozen=True)
class PromptExample:
    """A training prompt with all its responses."""

    messages: tuple[Message, ...]
    pvar: float | None
    selected: bool
    responses: tuple[ScoredResponse, ...]


@dataclass(frozen=True)
class Evaluation:
    """The new model against its opponent on the held-out prompts; rates in [0, 1]."""

    win_rate: float | None
    ci_lower: float | None
    ci_upper: float | None
    confidence: float
    num_judged: int
    """Prompts with a verdict."""
    num_wanted: int
    judge: str
    opponent: str
    """As it is called in a sentence: `the model it started from`, `champion version 3`."""
    challenger_answers: AnswerFigures
    opponent_answers: AnswerFigures
    counts: Counts | None = None
    circularity: str | None = None
    """What to say of a judge that is also a reward model of the selection; None where it is not."""


@dataclass(frozen=True)
class Gate:
    """The decision on promotion."""

    promoted: bool
    checks: tuple[GateCheck, ...]
    note: str = ""
    """What else decided, for example that promotion is switched off."""
    waits: bool = False
    """It passed, and a person has not decided yet."""

    @property
    def fate(self) -> str:
        """What became of the model, in a few words."""
        if self.waits:
            return "passed, waiting for approval"
        return "promoted" if self.promoted else "not promoted"


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows."""

    run_id: str
    title: str
    date: str
    """As it is to be shown; nothing here reads a clock."""
    settings: tuple[Setting, ...] = ()
    stages: tuple[StageRow, ...] = ()
    """In the order of the run, those that were not reached included."""
    distribution: PvarDistribution | None = None
    correlations: tuple[Correlation, ...] = ()
    """Of PVar with the other measures."""
    highest: tuple[PromptExample, ...] = ()
    """Prompts with the highest PVar, highest first."""
    lowest: tuple[PromptExample, ...] = ()
    """Prompts with the lowest PVar, lowest first."""
    steps: tuple[TrainStep, ...] = ()
    evaluation: Evaluation | None = None
    samples: tuple[AnswerSample, ...] = ()
    """Chosen by the collector; the first few are shown open."""
    gate: Gate | None = None
    links: tuple[NamedLink, ...] = ()
    failure: Failure | None = None
    waiting: WaitingStage | None = None

    @property
    def ability(self) -> Ability | None:
        """From the evaluation's figures; None where the source has no questions."""
        figures = next((row.figures for row in self.stages if row.stage == "evaluate"), {})
        num_questions = figures.get("num_ability_questions")
        if not isinstance(num_questions, int):
            return None
        after, before, change, lower, upper = (
            float(value) if isinstance(value, int | float) else None
            for value in map(figures.get, ABILITY_FIGURES)
        )
        return Ability(after, before, change, lower, upper, num_questions)
