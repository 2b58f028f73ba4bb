"""The data of a run's report. Every part can be missing, because a run can fail or stop early.

A missing part is None or empty, and a missing number is None or NaN. Neither is shown as zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.records import Message
from tasks.engine.tables import TrainStep
from tasks.report.benchmark_report import BenchmarkReport
from tasks.stages.evaluate import ABILITY_FIGURES


class Setting(NamedTuple):
    """One value of the configuration that differs from the default."""

    name: str
    """Dotted path in the configuration, for example `select.strategy`."""
    value: str


class RewardScale(NamedTuple):
    """How differences of one reward model's rewards are scaled to probabilities."""

    name: str
    reward_scale: float | None
    """τ in σ((r_i − r_j)/τ)."""
    saturation_share: float | None
    """Share of response pairs with |p − ½| > 0.49."""


class ExamExclusions(NamedTuple):
    """How many training prompts one exam excludes from the selection."""

    exam: str
    num_prompts: int


class ScoredResponse(NamedTuple):
    """A sampled answer and its reward."""

    text: str
    reward: float | None
    role: Literal["chosen", "rejected"] | None = None
    """Its role in the training pair; None if it is in no pair."""


class AnswerFigures(NamedTuple):
    """Figures of one model's answers to the evaluation prompts."""

    mean_tokens: float | None
    ended_share: float | None
    """Share of answers that are not truncated, in [0, 1]."""


class Ability(NamedTuple):
    """Shares of ability questions that each model answered correctly, and their difference."""

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
    """Judged comparisons by outcome for the new model."""

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
    """Probability in [0, 1] that `after` is better. ½ is a tie; None means not judged."""


class GateCheck(NamedTuple):
    """One condition of a promotion. Value and bound are shares in [0, 1], or have the unit that the
    description names."""

    check: str
    """Description that precedes the bound: `lower end of the win rate, above`."""
    value: float | None
    bound: float | None
    passed: bool
    is_share: bool = True
    """Whether value and bound are shares."""


class ExamPoint(NamedTuple):
    """The results of one version on the exam. Rates are in [0, 1]."""

    version: int
    win_rate: float | None
    ci_lower: float | None
    ci_upper: float | None
    ability: float | None
    """Share of the ability questions answered correctly."""


class ExamCurve(NamedTuple):
    """The versions that were measured on one exam under the same conditions, up to this one."""

    exam: str
    against_first: bool
    """Whether the win rates are against the first model; otherwise against each one's opponent."""
    points: tuple[ExamPoint, ...]
    """Oldest first; the last is the version of this run."""


class NamedLink(NamedTuple):
    """A link of the report. It is clickable if the target is an http, https or file address."""

    label: str
    target: str


class StoredFile(NamedTuple):
    """A file of an artifact."""

    target: str
    """Its address, as of a `NamedLink`."""
    name: str
    """Its path below the artifact."""
    rows: int | None
    """None if it is not a table."""
    num_bytes: int


class MachineRow(NamedTuple):
    """What some nodes' artifacts, or parts of them, were made with."""

    nodes: tuple[str, ...]
    hardware: str | None
    """None if it is not on record."""
    versions: Mapping[str, str]
    """By package."""


class Failure(NamedTuple):
    """Why the run ended before its last stage."""

    stage: str
    message: str
    was_interrupted: bool = False
    """By a person, which is no fault of the stage."""

    @property
    def word(self) -> str:
        """How the run ended, in one word."""
        return "interrupted" if self.was_interrupted else "failed"


class WaitingStage(NamedTuple):
    """What a waiting run waits for, and how to resume it."""

    what: str
    how_to_go_on: str


@dataclass(frozen=True)
class StageRow:
    """The outcome of one node of the run."""

    node: str
    """Name in the run, for example `score-vader`. A stage can have several nodes."""
    stage: str
    artifact: str | None
    """`stage/digest` of its artifact; None if the run did not complete it."""
    rows_in: int | None = None
    rows_out: int | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Reason → number of rejected rows."""
    seconds: float | None = None
    waits_for: str | None = None
    """What a waiting stage waits for."""
    reused: bool | None = None
    """Whether the artifact existed before this run."""
    figures: Mapping[str, float | int | str | bool | None] = field(default_factory=dict)
    """The manifest's summary."""
    files: tuple[StoredFile, ...] = ()


@dataclass(frozen=True)
class PvarDistribution:
    """PVar of all P candidate prompts, and which of them were selected."""

    pvar: NDArray[np.float64]
    """(P,), NaN for prompts without a PVar."""
    selected: NDArray[np.bool_]
    """(P,)."""
    cut: float | None
    """Smallest or largest selected PVar; None for a strategy that does not cut by PVar."""
    strategy: str
    num_tied_at_cut: int | None
    """Number of prompts with exactly the PVar of the cut. 1 means that there is no tie."""
    scales: tuple[RewardScale, ...] = ()
    exams: tuple[ExamExclusions, ...] = ()
    """Every exam of the run; a prompt can be excluded by several."""


class SourceWinRate(NamedTuple):
    """Win rate of the new model on the held-out prompts of one source. Rates are in [0, 1]."""

    win_rate: float
    ci_lower: float
    ci_upper: float
    num_judged: int


class SourceRow(NamedTuple):
    """Selection and result on the prompts of one source."""

    source: str
    num_prompts: int
    """Training prompts."""
    num_selected: int
    pvar_mean: float | None
    win_rate: SourceWinRate | None
    """None if no held-out prompt of the source was judged."""


class LabelRow(NamedTuple):
    """Agreement of a model with the labels of one source or annotator. Shares are in [0, 1]."""

    model: str
    group: str
    """Such as `source web`."""
    agreement: float | None
    ci_lower: float | None
    """Bounds of the 95 % interval."""
    ci_upper: float | None
    num_labels: int
    num_missing: int


class Correlation(NamedTuple):
    """Correlation of PVar with another measure of the same prompts."""

    measure: str
    spearman: float | None
    """Rank correlation ρ in [−1, 1]; None if a measure is constant."""
    ci_lower: float | None
    ci_upper: float | None
    """The 95 % interval of ρ is [ci_lower, ci_upper]."""
    pearson: float | None
    num_prompts: int
    """Number of prompts with both measures."""


@dataclass(frozen=True)
class PromptExample:
    """A training prompt with all its responses."""

    messages: tuple[Message, ...]
    pvar: float | None
    selected: bool
    responses: tuple[ScoredResponse, ...]


@dataclass(frozen=True)
class Evaluation:
    """Comparison of the new model with its opponent on held-out prompts. Rates are in [0, 1]."""

    win_rate: float | None
    ci_lower: float | None
    ci_upper: float | None
    confidence: float
    num_judged: int
    """Number of prompts with a verdict."""
    num_wanted: int
    judge: str
    opponent: str
    """Name in a sentence: `the model it started from`, `champion version 3`."""
    challenger_answers: AnswerFigures
    opponent_answers: AnswerFigures
    counts: Counts | None = None
    circularity: str | None = None
    """Warning about a judge that is also a reward model of the selection; None if there is none."""


@dataclass(frozen=True)
class Gate:
    """The decision on promotion."""

    promoted: bool
    checks: tuple[GateCheck, ...]
    note: str = ""
    """Another reason for the decision, for example that promotion is switched off."""
    waits: bool = False
    """Whether it passed and waits for a person's decision."""

    @property
    def fate(self) -> str:
        """The outcome for the model, in a few words."""
        if self.waits:
            return "passed, waiting for approval"
        return "promoted" if self.promoted else "not promoted"


@dataclass(frozen=True)
class ReportData:
    """All data of a report."""

    run_id: str
    title: str
    date: str
    """The displayed date. Rendering reads no clock."""
    settings: tuple[Setting, ...] = ()
    stand_ins: tuple[str, ...] = ()
    """What of the run is no real model, as clauses."""
    stages: tuple[StageRow, ...] = ()
    """In the order of the run, including stages that it did not reach."""
    distribution: PvarDistribution | None = None
    sources: tuple[SourceRow, ...] = ()
    """Empty where all prompts are of one source."""
    labels: tuple[LabelRow, ...] = ()
    """Empty without a label audit."""
    correlations: tuple[Correlation, ...] = ()
    """Correlations of PVar with other measures."""
    highest: tuple[PromptExample, ...] = ()
    """Prompts with the highest PVar, highest first."""
    lowest: tuple[PromptExample, ...] = ()
    """Prompts with the lowest PVar, lowest first."""
    steps: tuple[TrainStep, ...] = ()
    evaluation: Evaluation | None = None
    benchmarks: tuple[BenchmarkReport, ...] = ()
    samples: tuple[AnswerSample, ...] = ()
    """Chosen by the caller. The first few are shown without unfolding."""
    gate: Gate | None = None
    exam_curve: ExamCurve | None = None
    """None if no other version was measured on the exam of this run."""
    machines: tuple[MachineRow, ...] = ()
    links: tuple[NamedLink, ...] = ()
    failure: Failure | None = None
    waiting: WaitingStage | None = None

    @property
    def ability(self) -> Ability | None:
        """Ability from the evaluation's figures; None if the source has no ability questions."""
        figures = next((row.figures for row in self.stages if row.stage == "evaluate"), {})
        num_questions = figures.get("num_ability_questions")
        if not isinstance(num_questions, int):
            return None
        after, before, change, lower, upper = (
            float(value) if isinstance(value, int | float) else None
            for value in map(figures.get, ABILITY_FIGURES)
        )
        return Ability(after, before, change, lower, upper, num_questions)
