"""How far PVar can be predicted from the prompt alone, beside PVar from few responses.

The prediction is a ridge regression (Hoerl & Kennard 1970) of PVar on an embedding of the prompt.
It is cross-fitted: the prompts are divided into folds at random, and those of a fold are predicted
by a regression on the others, whose standardisation and penalty (leave-one-out) also come from the
others alone. So a prompt's own responses never enter its prediction.

Both kinds of estimate are compared with the same target, which neither has seen: each prompt's
usable responses are divided at random, the target is PVar of one half, and PVar of k responses is
of k of the other half. The target is noisy, so no estimate reaches ρ = 1: PVar of as many
responses as the target has shows about how far an equally noisy one gets, and the square root of
its ρ bounds what a perfect one would reach (`pvar.reliability`). The regression is also fitted on
noisy PVars, which costs it more on few prompts.

A regression that has found nothing predicts the mean of the other folds, which is low where the
own fold is high: over prompts, that alone is a rank correlation of about −√(folds / prompts). The
order of the prompts is therefore by the prediction minus that mean.

Intervals are percentiles of a bootstrap over prompts. The regression is not fitted again in it, so
they do not hold the chance of which prompts it was fitted on. Figures are means over random splits.

Axes: P prompts, D dimensions of the embedding, S splits, B resamples; rewards as in RewardMatrix.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.combine import combine_preference_variance
from pvar.errors import InputError
from pvar.evaluation.paired import Interval, mean_interval
from pvar.reliability import SIZES, top_prompts
from pvar.selection.strategy import RewardMatrix
from pvar.variance import MAX_PVAR

Floats = npt.NDArray[np.float64]

MIN_PROMPTS = 20
"""Below so many prompts nothing is said."""

MIN_RESPONSES = 4
"""Usable responses that a prompt needs: two for the target, and two others."""

PENALTIES = np.logspace(0, 6, 13)
"""Candidate penalties for standardised features, from almost none to almost the mean alone."""

MAX_BLOCK_VALUES = 4_000_000


class Predictions(NamedTuple):
    """Cross-fitted predictions of PVar, each (P,)."""

    pvar: Floats
    above_mean: Floats
    """`pvar` minus the mean PVar of the prompts on which the regression was fitted."""


class Agreement(NamedTuple):
    """How well an estimate of PVar agrees with a measurement; NaN where one is constant."""

    spearman: float
    spearman_interval: Interval
    """95 %, over prompts."""
    r_squared: float
    """1 − Σ(target − estimate)² / Σ(target − mean)²; negative if worse than the mean."""
    r_squared_interval: Interval
    overlap: float
    """Share of the target's top prompts that are also the estimate's, in [0, 1]."""


class SamplingComparison(NamedTuple):
    """The prediction, and PVar of few responses, against the same measurements."""

    num_prompts: int
    top_share: float
    prediction_of_all: Agreement
    """The prediction against PVar of all responses."""
    prediction: Agreement
    """The prediction against PVar of half of the responses."""
    sampling: dict[int, Agreement]
    """Number of responses k → PVar of k responses (fewer where so many are not usable) against
    PVar of the other half."""


class GroupVariance(NamedTuple):
    """PVar in one group of prompts, and the comparison among them."""

    num_prompts: int
    pvar_mean: float
    pvar_interval: Interval
    """95 %, of the mean over prompts."""
    comparison: SamplingComparison | None
    """None below MIN_PROMPTS."""


def is_usable(rewards: RewardMatrix) -> npt.NDArray[np.bool_]:
    """(P,) which prompts have enough usable responses; InputError if too few do."""
    usable = np.asarray(rewards.num_rewards >= MIN_RESPONSES)
    if (number := int(usable.sum())) < MIN_PROMPTS:
        raise InputError(
            f"{number} of {len(usable)} prompts have {MIN_RESPONSES} usable responses or more; a "
            f"comparison needs at least {MIN_PROMPTS}: sample more responses "
            "(sample.num_responses) or more prompts"
        )
    return usable


def predict_variance(
    embeddings: npt.ArrayLike, pvar: npt.ArrayLike, *, num_folds: int = 10, seed: int = 0
) -> Predictions:
    """Cross-fitted predictions of `pvar` (P,) from `embeddings` (P, D).

    Raises InputError for fewer than MIN_PROMPTS prompts, arrays that do not fit, or values that
    are not finite.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, target = np.asarray(embeddings, np.float64), np.asarray(pvar, np.float64)
    if features.ndim != 2 or target.shape != features.shape[:1] or len(target) < MIN_PROMPTS:
        raise InputError(
            f"embeddings have the shape {features.shape} and PVar {target.shape}; expected "
            f"(num_prompts, num_dimensions) and (num_prompts,), with at least {MIN_PROMPTS} prompts"
        )
    for name, values in (("embeddings", features), ("PVars", target)):
        if num_wrong := int(np.sum(~np.isfinite(values))):
            raise InputError(f"{num_wrong} of {values.size} values of the {name} are not finite")
    found = Predictions(np.empty_like(target), np.empty_like(target))
    for others, own in KFold(num_folds, shuffle=True, random_state=seed).split(features):
        regression = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
        regression.fit(features[others], target[others])
        found.pvar[own] = regression.predict(features[own])
        # What is left after 12 decimals is rounding, which must not order the prompts.
        found.above_mean[own] = np.round(found.pvar[own] - target[others].mean(), 12)
    return found


def compare_with_sampling(
    rewards: RewardMatrix,
    predictions: Predictions,
    *,
    top_share: float,
    num_splits: int = 20,
    num_resamples: int = 1000,
    seed: int = 0,
) -> SamplingComparison:
    """Compare predictions with PVar of 2, 3, 4, … responses, up to half of them.

    rewards: prompts with at least MIN_RESPONSES usable responses each (`is_usable`).
    top_share: share of the prompts that counts as the top.
    """
    rng = np.random.default_rng(seed)
    draws = _draws(len(predictions.pvar), num_resamples, top_share, rng)
    sizes = [size for size in SIZES if size <= rewards.rewards.shape[2] // 2]
    targets, sampled = [], []
    for target, others in _splits(rewards, num_splits, rng):
        targets.append(_variance(rewards, target))
        sampled.append([_variance(rewards, others < size) for size in sizes])
    halves, everything = np.stack(targets), _variance(rewards, None)[None]
    order, values = predictions.above_mean, predictions.pvar
    return SamplingComparison(
        len(values),
        top_share,
        _agreement(order[None], values[None], everything, draws),
        _agreement(
            np.broadcast_to(order, halves.shape),
            np.broadcast_to(values, halves.shape),
            halves,
            draws,
        ),
        {
            size: _agreement(estimate, estimate, halves, draws)
            for size, estimate in zip(sizes, np.stack(sampled, axis=1), strict=True)
        },
    )


def variance_by_group(
    rewards: RewardMatrix,
    predictions: Predictions,
    groups: Sequence[str],
    *,
    top_share: float,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, GroupVariance]:
    """PVar by the group (P,) of each prompt, sorted, with the comparison of `predictions` in it.

    Arguments as in `compare_with_sampling`.
    """
    found = {}
    for group in sorted(set(groups)):
        rows = np.flatnonzero(np.array(groups) == group)
        among = replace(rewards, rewards=rewards.rewards[:, rows], num_tokens=None)
        pvar = _variance(among, None)
        ends = mean_interval(  # PVar is at most ¼, and the interval is for values in [0, 1]
            pvar / MAX_PVAR, confidence=0.95, num_resamples=num_resamples, seed=seed
        )
        comparison = None
        if len(rows) >= MIN_PROMPTS:
            comparison = compare_with_sampling(
                among,
                Predictions(predictions.pvar[rows], predictions.above_mean[rows]),
                top_share=top_share,
                num_resamples=num_resamples,
                seed=seed,
            )
        interval = Interval(ends.lower * MAX_PVAR, ends.upper * MAX_PVAR)
        found[group] = GroupVariance(len(rows), float(pvar.mean()), interval, comparison)
    return found


def _variance(rewards: RewardMatrix, mask: npt.NDArray[np.bool_] | None) -> Floats:
    combined = combine_preference_variance(
        rewards.rewards, scales=rewards.scales, mask=mask, rule=rewards.combination
    )
    return np.asarray(combined, np.float64)


def _splits(
    rewards: RewardMatrix, number: int, rng: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]]:
    """(P, N) the responses of the target's half, and the order of the others from 0 on."""
    is_known = np.isfinite(rewards.rewards).all(axis=0)
    half = rewards.num_rewards[:, None] // 2
    for _ in range(number):
        keys = np.where(is_known, rng.random(is_known.shape), np.inf)
        place = keys.argsort(axis=1).argsort(axis=1)
        is_target = place < half
        yield is_target, np.where(is_target, place.shape[1], place - half)


class _Draws(NamedTuple):
    weights: Floats
    """(P, 1 + B) how often each prompt is drawn; in the first column all prompts once."""
    num_top: int
    rng: np.random.Generator


def _draws(num_prompts: int, number: int, top_share: float, rng: np.random.Generator) -> _Draws:
    drawn = rng.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=number)
    weights = np.vstack([np.ones(num_prompts), drawn]).T
    return _Draws(np.ascontiguousarray(weights), max(1, round(top_share * num_prompts)), rng)


def _agreement(order: Floats, values: Floats, target: Floats, draws: _Draws) -> Agreement:
    """Agreement of an estimate with the target, mean over splits: arrays (S, P).

    `order` is the estimate by which prompts are ordered, `values` the one on the scale of PVar.
    """
    spearman, r_squared = np.zeros((2, draws.weights.shape[1]))
    overlap = 0.0
    for ordered, estimated, measured in zip(order, values, target, strict=True):
        spearman += _spearman(ordered, measured, draws.weights) / len(target)
        r_squared += _r_squared(estimated, measured, draws.weights) / len(target)
        best, top = (top_prompts(each, draws.num_top, draws.rng) for each in (ordered, measured))
        overlap += len(best & top) / draws.num_top / len(target)
    return Agreement(
        float(spearman[0]), _interval(spearman), float(r_squared[0]), _interval(r_squared), overlap
    )


def _interval(values: Floats) -> Interval:
    """Percentiles over the resamples that have a value; NaN if the estimate itself has none."""
    known = values[1:][np.isfinite(values[1:])]
    if np.isnan(values[0]) or not len(known):
        return Interval(np.nan, np.nan)
    lower, upper = np.quantile(known, [0.025, 0.975])
    return Interval(float(lower), float(upper))


def _spearman(first: Floats, second: Floats, weights: Floats) -> Floats:
    """(1 + B,) rank correlations of (P,) values with weights; NaN where one is constant."""
    found = np.empty(weights.shape[1])
    width = max(1, MAX_BLOCK_VALUES // len(weights))
    for start in range(0, len(found), width):
        here = weights[:, start : start + width]
        x, y = _centred_ranks(first, here), _centred_ranks(second, here)
        weighted = here * x
        spread = np.sqrt((weighted * x).sum(axis=0) * (here * y * y).sum(axis=0))
        with np.errstate(invalid="ignore"):
            found[start : start + width] = (weighted * y).sum(axis=0) / spread
    return found


def _centred_ranks(values: Floats, weights: Floats) -> Floats:
    """(P, B) mid-ranks minus their mean, if each value occurs as often as its weight says."""
    order = np.argsort(values)
    starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
    totals = np.add.reduceat(weights[order], starts, axis=0)
    middle = np.cumsum(totals, axis=0) - totals / 2 - len(values) / 2
    ranks: Floats = middle[np.unique(values, return_inverse=True)[1]]
    return ranks


def _r_squared(estimated: Floats, measured: Floats, weights: Floats) -> Floats:
    """(1 + B,) for (P,) estimates and measurements with weights; NaN for a constant target."""
    centred = measured - measured.mean()
    spread = centred**2 @ weights - (centred @ weights) ** 2 / len(weights)
    spread[spread <= 1e-9 * np.sum(centred**2)] = np.nan  # rounding, where all drawn are equal
    return np.asarray(1 - (measured - estimated) ** 2 @ weights / spread)
