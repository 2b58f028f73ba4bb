"""Arena-Hard's style-controlled scores: the models' scores for answers of equal style.

    logit P(model beats baseline) = s · (strength_model − strength_baseline) + γ · features

is fitted to the games of all models together (Bradley–Terry with covariates), a big win counting
three times; the score is the probability at equal style, σ(s · (strength_model −
strength_baseline)), in percent. The features of `pvar.evaluation.style` are standardised over the
games first, and only those that are controlled take part.

    v0.1   s = ln 10, every game twice, penalty ½ Σ coefficient² (scikit-learn's default);
           features standardised with ddof 0
    v2.0   s = 1, no penalty; ddof 1

Source: lmarena/arena-hard-auto, utils_math.py at d99b139 and show_result.py, math_utils.py at
196f6b8. Differences: the fits are converged; the score is the fit of all games, not the median of
resampled fits; v2.0's controls select the features they name (the original slices away a model's
column when only one kind is asked for); resamples are seeded.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.errors import InputError
from pvar.evaluation.arena_hard import (
    CLUSTERED_CONFIDENCE,
    PUBLISHED_TAIL,
    ArenaHardScore,
    BattleOutcome,
    JudgedQuestion,
    outcomes,
)
from pvar.evaluation.bradley_terry import fit_strengths
from pvar.evaluation.paired import Interval
from pvar.evaluation.style import (
    CONTROLLED_COLUMNS,
    Control,
    StyleCounts,
    Version,
    standardise,
    style_differences,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NUM_RESAMPLES = 100  # as published; each is a fit

StyleKey = tuple[str, str]
"""(model, question id)."""


class _Fit(NamedTuple):
    """What the two versions do differently."""

    scale: float
    copies: int
    c: float
    """Inverse strength of the penalty."""
    ddof: int


_FITS: dict[Version, _Fit] = {
    "v0.1": _Fit(scale=math.log(10), copies=2, c=1.0, ddof=0),
    "v2.0": _Fit(scale=1.0, copies=1, c=math.inf, ddof=1),
}


class _Games(NamedTuple):
    """Games of all models, one entry each."""

    models: Ints  # index of the model
    questions: Ints  # index of the question
    values: Floats
    weights: Floats
    design: Floats  # (num_games, num_models + 1 + num_features)


def style_controlled_scores(
    questions: Sequence[JudgedQuestion],
    styles: Mapping[StyleKey, StyleCounts],
    version: Version,
    controls: Sequence[Control],
    *,
    num_wanted: int,
    seed: int,
) -> dict[str, ArenaHardScore]:
    """Scores of all models at equal style, by model.

    A game whose model or baseline has no style counts for that question is left out, and lowers
    the coverage. Raises InputError for a model without any, and for several baselines in v0.1.
    """
    names = sorted({question.model for question in questions})
    played = [
        (question, game)
        for question in questions
        if (question.model, question.question_id) in styles
        and (question.baseline, question.question_id) in styles
        for game in outcomes(question, version)
    ]
    _check(questions, played, version)
    games = _table(played, names, styles, version, controls)
    row_counts, question_counts = _resampled_counts(games, np.random.default_rng(seed))
    tail = PUBLISHED_TAIL[version]
    published = _intervals(games, len(names), version, row_counts, (tail, 1 - tail))
    alpha = 1 - CLUSTERED_CONFIDENCE
    clustered = _intervals(games, len(names), version, question_counts, (alpha / 2, 1 - alpha / 2))
    scores = _scores(games, games.weights, len(names), version)
    return {
        name: ArenaHardScore(
            score=float(scores[number]),
            published=published[number],
            clustered=clustered[number],
            num_questions=np.unique(games.questions[games.models == number]).size,
            num_games=int((games.models == number).sum()),
            coverage=float((games.models == number).sum() / (2 * num_wanted)) if num_wanted else 0,
        )
        for number, name in enumerate(names)
    }


def _check(
    questions: Sequence[JudgedQuestion],
    played: Sequence[tuple[JudgedQuestion, BattleOutcome]],
    version: Version,
) -> None:
    baselines = {question.baseline for question in questions}
    if version == "v0.1" and len(baselines) > 1:
        raise InputError(
            f"v0.1 has one baseline, but the games have {', '.join(sorted(baselines))}; use one "
            "file per baseline"
        )
    with_style = {question.model for question, _ in played}
    if missing := sorted({question.model for question in questions} - with_style):
        raise InputError(
            f"no judged answer of {', '.join(missing)} has style counts on both sides (the model "
            f"and its baseline {', '.join(sorted(baselines))}); give the metadata of both"
        )


def _table(
    played: Sequence[tuple[JudgedQuestion, BattleOutcome]],
    names: Sequence[str],
    styles: Mapping[StyleKey, StyleCounts],
    version: Version,
    controls: Sequence[Control],
) -> _Games:
    fit = _FITS[version]
    model_numbers = {name: number for number, name in enumerate(names)}
    question_ids = sorted({question.question_id for question, _ in played})
    question_numbers = {question_id: number for number, question_id in enumerate(question_ids)}
    models = np.array([model_numbers[question.model] for question, _ in played])
    weights = np.array([game.weight for _, game in played], dtype=np.float64)
    differences = style_differences(
        np.array([styles[q.model, q.question_id] for q, _ in played], dtype=np.float64),
        np.array([styles[q.baseline, q.question_id] for q, _ in played], dtype=np.float64),
        version,
    )
    columns = sorted({column for control in controls for column in CONTROLLED_COLUMNS[control]})
    strengths = np.zeros((len(played), len(names) + 1))
    strengths[np.arange(len(played)), models] = fit.scale
    strengths[:, -1] = -fit.scale
    features = standardise(differences[:, columns], weights, ddof=fit.ddof)
    return _Games(
        models=models,
        questions=np.array([question_numbers[question.question_id] for question, _ in played]),
        values=np.array([game.value for _, game in played]),
        weights=weights,
        design=np.concatenate([strengths, features], axis=1),
    )


def _scores(games: _Games, weights: Floats, num_models: int, version: Version) -> Floats:
    """Win probability of each model at equal style, in percent."""
    fit = _FITS[version]
    coefficients = fit_strengths(games.design, games.values, fit.copies * weights, c=fit.c)
    logits = fit.scale * (coefficients[:num_models] - coefficients[num_models])
    scores: Floats = 100 / (1 + np.exp(-logits))
    return scores


def _resampled_counts(games: _Games, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Weights of the games in each resample: of single rows, and of whole questions."""
    num_rows = int(games.weights.sum())
    rows = rng.multinomial(num_rows, games.weights / num_rows, size=NUM_RESAMPLES)
    num_questions = int(games.questions.max()) + 1
    drawn = rng.multinomial(
        num_questions, np.full(num_questions, 1 / num_questions), size=NUM_RESAMPLES
    )
    return rows.astype(np.float64), drawn[:, games.questions] * games.weights


def _intervals(
    games: _Games,
    num_models: int,
    version: Version,
    counts: Floats,
    levels: tuple[float, float],
) -> list[Interval]:
    """Percentile interval of each model's score over the resamples."""
    scores = np.array([_scores(games, weights, num_models, version) for weights in counts])
    lower, upper = np.quantile(scores, levels, axis=0)
    return [Interval(float(low), float(high)) for low, high in zip(lower, upper, strict=True)]
