"""The benchmarks of a run's report, which the page of a run in Prefect shows, too."""

from typing import NamedTuple

from pvar.evaluation.benchmark_scores import BenchmarkDifference
from pvar.records import Message


class BenchmarkSide(NamedTuple):
    """One model on a benchmark, over all questions or in one category. Rates in percent."""

    role: str
    model: str
    category: str | None
    score: float | None
    ci_lower: float | None
    ci_upper: float | None
    length_controlled: float | None
    style_controlled: float | None
    mean_length: float | None
    """Characters."""
    coverage: float
    """Share of the questions that count, in [0, 1]."""
    num_won: int | None
    """Questions won against the baseline; None without a baseline."""
    num_lost: int | None
    difference: BenchmarkDifference | None
    """New model minus opponent, in percentage points; None in the opponent's row."""


class BenchmarkAnswer(NamedTuple):
    """An answer of the new model to a benchmark's question, and the baseline's."""

    messages: tuple[Message, ...]
    baseline: str
    answer: str
    won: bool


class BenchmarkReport(NamedTuple):
    """The result of one benchmark."""

    name: str
    kind: str
    judge: str | None
    sides: tuple[BenchmarkSide, ...]
    ungraded: str | None
    """Categories without a baseline, which were not graded."""
    not_measured: str | None
    """Why there is no result."""
    judge_check: str | None
    """Whether the judge answers as before, and which results are not comparable."""
    answers: tuple[BenchmarkAnswer, ...]
