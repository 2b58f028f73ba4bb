"""What a benchmark says of a model: its scores in percent, and its result on each question."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.evaluation.paired import paired_score_difference


class BenchmarkScore(NamedTuple):
    """The score of one model, in one category or over all (None). None is missing."""

    role: str
    model: str
    category: str | None
    score: float | None
    """The benchmark's own headline: the win rate of AlpacaEval, the score of Arena-Hard."""
    standard_error: float | None
    """AlpacaEval's published standard error."""
    ci_lower: float | None
    """The published interval of Arena-Hard; of AlpacaEval the 95 % interval over questions."""
    ci_upper: float | None
    clustered_ci_lower: float | None
    """95 % interval over questions."""
    clustered_ci_upper: float | None
    discrete_win_rate: float | None
    length_controlled_win_rate: float | None
    length_controlled_standard_error: float | None
    style_controlled_score: float | None
    style_ci_lower: float | None
    style_ci_upper: float | None
    mean_length_characters: float | None
    num_questions: int
    num_judged: int
    coverage: float


def unjudged_score(
    *,
    role: str,
    model: str,
    category: str | None,
    score: float | None,
    num_questions: int,
    num_judged: int,
    interval: tuple[float, float] | None = None,
    standard_error: float | None = None,
) -> BenchmarkScore:
    """The score of a benchmark without judge, answers and lengths."""
    lower, upper = interval or (None, None)
    return BenchmarkScore(
        role=role,
        model=model,
        category=category,
        score=score,
        standard_error=standard_error,
        ci_lower=lower,
        ci_upper=upper,
        clustered_ci_lower=lower,
        clustered_ci_upper=upper,
        discrete_win_rate=None,
        length_controlled_win_rate=None,
        length_controlled_standard_error=None,
        style_controlled_score=None,
        style_ci_lower=None,
        style_ci_upper=None,
        mean_length_characters=None,
        num_questions=num_questions,
        num_judged=num_judged,
        coverage=num_judged / num_questions if num_questions else 0.0,
    )


class QuestionResult(NamedTuple):
    """One model's result on one question."""

    role: str
    prompt_id: str
    category: str | None
    value: float | None
    """Share of the question that the model won, in [0, 1]; None if it was not judged."""
    weight: float
    """Weight of the question in the score (Arena-Hard counts big wins three times)."""
    num_characters: int | None
    """Length of the judged answer; None without an answer."""


class BenchmarkDifference(NamedTuple):
    """Score of the challenger minus the opponent's, in percentage points, over questions."""

    category: str | None
    difference: float | None
    ci_lower: float | None
    ci_upper: float | None
    num_questions: int
    """Questions that are judged for both."""


def benchmark_difference(
    challenger: Sequence[QuestionResult],
    opponent: Sequence[QuestionResult],
    *,
    category: str | None,
    seed: int,
) -> BenchmarkDifference:
    """The paired difference with its 95 % interval; None where no question is judged for both."""
    prompts = sorted({row.prompt_id for row in (*challenger, *opponent)})
    found = paired_score_difference(
        _columns(challenger, prompts), _columns(opponent, prompts), seed=seed
    )
    if found.num_judged == 0:
        return BenchmarkDifference(category, None, None, None, 0)
    return BenchmarkDifference(
        category,
        100 * found.difference,
        100 * found.ci_lower,
        100 * found.ci_upper,
        found.num_judged,
    )


def _columns(
    rows: Sequence[QuestionResult], prompts: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values and weights of these prompts, in order; NaN where a prompt is not judged."""
    by_prompt = {row.prompt_id: row for row in rows if row.value is not None}
    found = [by_prompt.get(prompt) for prompt in prompts]
    values = [math.nan if row is None or row.value is None else row.value for row in found]
    weights = [0.0 if row is None else row.weight for row in found]
    return np.array(values), np.array(weights)


def known_number(value: float) -> float | None:
    """The value, or None for NaN."""
    return None if math.isnan(value) else float(value)
