"""Arena-Hard's scores from the verdicts of its two games per question.

A verdict is 1, ½ or 0 for the model; "much better" (>>) counts three times. The score is the mean
in percent. Because every game is against the baseline, this equals the Bradley–Terry maximum
likelihood estimate (v0.1), and it is the win rate by definition (v2.0).

    v0.1   a game without a usable verdict is left out; interval: 2.5 % to 97.5 %
    v2.0   a question with such a game is left out whole; interval: 5 % to 95 %; A<B, B<A, … are
           verdicts too

The published interval resamples single rows. A question's two games and the three copies of a big
win are not independent, so it is about half as wide as it should be. Use it to compare with the
leaderboard, and use the interval over questions (95 %) for decisions.

Source: lmarena/arena-hard-auto, show_result.py and utils_math.py at d99b139 (v0.1), show_result.py
at 196f6b8 (v2.0). The original's 100 unseeded resamples are 10,000 seeded ones here, and v2.0's
score is the mean itself and not the mean of resampled means.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from pvar.evaluation.paired import Interval, mean_interval
from pvar.evaluation.style import Version

NUM_RESAMPLES = 10_000
CLUSTERED_CONFIDENCE = 0.95
PUBLISHED_TAIL: dict[Version, float] = {"v0.1": 0.025, "v2.0": 0.05}
"""Share outside the published interval on each side."""
BIG_WIN = 3

_NUM_QUESTIONS: dict[Version, int] = {"v0.1": 500, "v2.0": 750}
_NUM_QUESTIONS_BY_CATEGORY = {
    "arena-hard-v0.1": 500,
    "hard_prompt": 500,
    "creative_writing": 250,
}

# Verdict → outcome for assistant A. v2.0 also reads the mirrored spellings.
_OUTCOMES: dict[str, tuple[float, int]] = {
    "A>>B": (1.0, BIG_WIN),
    "A>B": (1.0, 1),
    "A=B": (0.5, 1),
    "B>A": (0.0, 1),
    "B>>A": (0.0, BIG_WIN),
}
_MIRRORED: dict[str, str] = {
    "B<<A": "A>>B",
    "B<A": "A>B",
    "B=A": "A=B",
    "A<B": "B>A",
    "A<<B": "B>>A",
}


class JudgedQuestion(NamedTuple):
    """The verdicts on one model's answer to one question."""

    question_id: str
    model: str
    baseline: str
    category: str | None
    first: str | None
    """Verdict of the game in which the baseline is assistant A."""
    second: str | None
    """Verdict of the game in which the model is assistant A."""


class BattleOutcome(NamedTuple):
    """One game from the model's side."""

    value: float
    """1 win, ½ tie, 0 loss."""
    weight: int


class ArenaHardScore(NamedTuple):
    """A model's score against the baseline, in percent; NaN if nothing was judged."""

    score: float
    published: Interval
    clustered: Interval
    num_questions: int
    """Questions with at least one game that counts."""
    num_games: int
    coverage: float
    """Games that count / games wanted."""


def num_benchmark_questions(version: Version, categories: Collection[str]) -> int:
    """Number of the benchmark's questions in these categories, or in the version if unknown.

    This is the requested number, because questions that are missing in a file are not judged.
    """
    if categories and all(category in _NUM_QUESTIONS_BY_CATEGORY for category in categories):
        return sum(_NUM_QUESTIONS_BY_CATEGORY[category] for category in categories)
    return _NUM_QUESTIONS[version]


def outcomes(question: JudgedQuestion, version: Version) -> tuple[BattleOutcome, ...]:
    """The question's games that count."""
    first, second = (_outcome(label, version) for label in (question.first, question.second))
    if version == "v2.0" and (first is None or second is None):
        return ()
    games = (
        # The model is assistant B in the first game.
        first and BattleOutcome(1 - first.value, first.weight),
        second,
    )
    return tuple(game for game in games if game is not None)


def score_model(
    questions: Sequence[JudgedQuestion], version: Version, *, num_wanted: int, seed: int
) -> ArenaHardScore:
    """Score one model from its judged questions, of `num_wanted` requested ones."""
    games = [played for question in questions if (played := outcomes(question, version))]
    flat = [game for played in games for game in played]
    return ArenaHardScore(
        score=100 * _mean(flat) if flat else math.nan,
        published=published_interval(flat, version, seed=seed),
        clustered=_percent(
            mean_interval(
                np.array([_mean(played) for played in games]),
                weights=np.array([sum(g.weight for g in played) for played in games], dtype=float),
                confidence=CLUSTERED_CONFIDENCE,
                num_resamples=NUM_RESAMPLES,
                seed=seed,
            )
        ),
        num_questions=len(games),
        num_games=len(flat),
        coverage=len(flat) / (2 * num_wanted) if num_wanted else 0.0,
    )


def published_interval(games: Sequence[BattleOutcome], version: Version, *, seed: int) -> Interval:
    """Percentiles of the score over resampled rows, three for each big win, in percent."""
    num_rows = sum(game.weight for game in games)
    if not num_rows:
        return Interval(math.nan, math.nan)
    values = np.array([0.0, 0.5, 1.0])
    shares = [sum(g.weight for g in games if g.value == value) / num_rows for value in values]
    rng = np.random.default_rng(seed)
    scores = rng.multinomial(num_rows, shares, size=NUM_RESAMPLES) @ values / num_rows
    tail = PUBLISHED_TAIL[version]
    lower, upper = np.quantile(scores, [tail, 1 - tail])
    return Interval(100 * float(lower), 100 * float(upper))


def _outcome(label: str | None, version: Version) -> BattleOutcome | None:
    if label is None:
        return None
    if version == "v2.0":
        label = _MIRRORED.get(label, label)
    found = _OUTCOMES.get(label)
    return BattleOutcome(*found) if found else None


def _mean(games: Sequence[BattleOutcome]) -> float:
    return sum(g.value * g.weight for g in games) / sum(g.weight for g in games)


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.lower, 100 * interval.upper)
