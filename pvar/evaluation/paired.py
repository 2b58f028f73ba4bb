"""Paired comparison of two models on the same prompts, with prompt-clustered intervals.

The prompt is the sampling unit. Several judgments of one prompt (both orders of a game, repeated
verdicts) are correlated, so they are averaged first and prompts are resampled: a bootstrap over
single judgments would give intervals that are too narrow.

The interval is the bias-corrected and accelerated (BCa) bootstrap of the mean: Efron, "Better
Bootstrap Confidence Intervals", JASA 82 (1987); for a mean the acceleration is the skewness of the
values / (6 √n). Compared with plain percentiles it keeps its coverage near 0 and 1 and its cost is
the same.

Where all n prompts have the same value v, resampling sees no spread and would claim certainty. The
honest statement is the exact one: with probability 1 − α/2, prompts of another value make up at
most ε = 1 − (α/2)^(1/n) of the population, and can move the mean to v − εv or v + ε(1 − v). For all
wins the lower end is Clopper–Pearson's, (α/2)^(1/n); with nothing judged it is all of [0, 1].
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pvar.errors import InputError

Floats = NDArray[np.float64]

_NORMAL = NormalDist()
_MAX_BLOCK_VALUES = 4_000_000
_SAME = 1e-12
"""Values closer than this are one value: the rest is rounding of a − b or of a mean."""


class Interval(NamedTuple):
    """A confidence interval."""

    lower: float
    upper: float


class WinRate(NamedTuple):
    """How often the challenger is better, over prompts; rates in [0, 1]."""

    win_rate: float
    """Mean preference; NaN where nothing was judged."""
    ci_lower: float
    ci_upper: float
    num_judged: int
    """Prompts with at least one judgment."""
    num_wanted: int
    coverage: float
    """num_judged / num_wanted."""


class PairedDifference(NamedTuple):
    """Mean of a − b over the prompts on which both have a value; in [−1, 1]."""

    difference: float
    ci_lower: float
    ci_upper: float
    num_judged: int
    """Prompts with a judgment of both."""
    num_wanted: int
    coverage: float


def paired_win_rate(
    preferences: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int,
) -> WinRate:
    """Win rate of the challenger with its prompt-clustered interval.

    `preferences` holds the challenger's probability of being better, in [0, 1] (½ is a tie, NaN is
    not judged), of shape (num_prompts,) or (num_prompts, num_judgments). The same seed and values
    give the same interval. Raises InputError for another shape or a value outside [0, 1].
    """
    return _win_rate(prompt_means(preferences), confidence, num_resamples, seed)


def paired_difference(
    preferences_a: ArrayLike,
    preferences_b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int,
) -> PairedDifference:
    """Difference a − b of two models judged against the same opponent on the same prompts.

    Shapes as in `paired_win_rate`; row i of both belongs to the same prompt (join by prompt id
    first). A prompt that lacks either is left out and lowers the coverage. Raises InputError for
    different numbers of prompts, another shape, or a value outside [0, 1].
    """
    a, b = prompt_means(preferences_a), prompt_means(preferences_b)
    if a.size != b.size:
        raise InputError(
            f"a paired difference needs the same prompts on both sides, but there are {a.size} "
            f"and {b.size}; join the two by prompt id"
        )
    # (a − b + 1) / 2 is a preference on [0, 1]: the same interval, on a scale half as long.
    rescaled = _win_rate((a - b + 1) / 2, confidence, num_resamples, seed)
    return PairedDifference(
        difference=2 * rescaled.win_rate - 1,
        ci_lower=2 * rescaled.ci_lower - 1,
        ci_upper=2 * rescaled.ci_upper - 1,
        num_judged=rescaled.num_judged,
        num_wanted=rescaled.num_wanted,
        coverage=rescaled.coverage,
    )


def paired_score_difference(
    a: tuple[Floats, Floats],
    b: tuple[Floats, Floats],
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int,
) -> PairedDifference:
    """Difference a − b of two weighted means over the same prompts, in [−1, 1].

    Each argument is (values in [0, 1] or NaN, weights), of shape (num_prompts,), with row i of all
    belonging to the same prompt; the weight of a value is positive. The difference is
    Σ wₐ vₐ / Σ wₐ − Σ w_b v_b / Σ w_b over the prompts on which both have a value; prompts are
    resampled (BCa). With equal weights it is `paired_difference`, and its interval is also taken
    where all resamples have the same difference.
    """
    plain = paired_difference(
        a[0], b[0], confidence=confidence, num_resamples=num_resamples, seed=seed
    )
    both = ~np.isnan(a[0] + b[0])
    (values_a, weights_a), (values_b, weights_b) = (
        (values[both], weights[both]) for values, weights in (a, b)
    )
    if plain.num_judged < 2 or np.ptp(weights_a) == np.ptp(weights_b) == 0:
        return plain
    ours = _resample(values_a, weights_a, num_resamples, seed)
    theirs = _resample(values_b, weights_b, num_resamples, seed)  # the same draws of prompts
    difference, differences = ours.mean - theirs.mean, ours.means - theirs.means
    if np.ptp(differences) < _SAME:
        return plain._replace(difference=difference)
    influence = ours.influence / np.sum(weights_a) - theirs.influence / np.sum(weights_b)
    levels = _bca_levels(difference, differences, influence, 1 - confidence)
    lower, upper = np.quantile(differences, levels)
    return plain._replace(difference=difference, ci_lower=float(lower), ci_upper=float(upper))


class _Resampled(NamedTuple):
    """A weighted mean, the means of resamples, and the influence of each prompt."""

    mean: float
    means: Floats
    """(num_resamples,)."""
    influence: Floats
    """(num_prompts,), times the sum of the weights."""


def _resample(values: Floats, weights: Floats, num_resamples: int, seed: int) -> _Resampled:
    mean = float(np.sum(values * weights) / np.sum(weights))
    means = _resampled_means(values, weights, num_resamples, np.random.default_rng(seed))
    return _Resampled(mean, means, weights * (values - mean))


def prompt_means(preferences: ArrayLike) -> Floats:
    """Mean over the judgments of each prompt, (num_prompts,); NaN without judgments.

    Shapes and errors as in `paired_win_rate`.
    """
    values = np.asarray(preferences, dtype=np.float64)
    if values.ndim not in (1, 2):
        raise InputError(
            f"preferences have the shape {values.shape}; give (num_prompts,) or "
            "(num_prompts, num_judgments)"
        )
    judged = ~np.isnan(values)
    if num_outside := int(np.sum(judged & ~((values >= 0) & (values <= 1)))):
        raise InputError(
            f"{num_outside} of {values.size} preferences are outside [0, 1]; they must be "
            "probabilities that the challenger is better (subtract 1 from AlpacaEval's 1 to 2)"
        )
    if values.ndim == 1:
        return values
    num_judgments = judged.sum(axis=1)
    totals = np.where(judged, values, 0.0).sum(axis=1)
    return np.where(num_judgments > 0, totals / np.maximum(num_judgments, 1), np.nan)


def _win_rate(per_prompt: Floats, confidence: float, num_resamples: int, seed: int) -> WinRate:
    values = per_prompt[~np.isnan(per_prompt)]
    interval = mean_interval(values, confidence=confidence, num_resamples=num_resamples, seed=seed)
    return WinRate(
        win_rate=float(values.mean()) if values.size else math.nan,
        ci_lower=interval.lower,
        ci_upper=interval.upper,
        num_judged=values.size,
        num_wanted=per_prompt.size,
        coverage=values.size / per_prompt.size if per_prompt.size else 0.0,
    )


def mean_interval(
    values: Floats,
    *,
    weights: Floats | None = None,
    confidence: float,
    num_resamples: int,
    seed: int,
) -> Interval:
    """BCa interval of the mean of independent values in [0, 1], shape (n,), no NaN.

    With `weights`, positive and of the same shape, of the weighted mean Σ w v / Σ w: value and
    weight are drawn together. The exact interval of the module's docstring where all values are
    the same.
    """
    alpha = 1 - confidence
    if values.size == 0:
        return Interval(0.0, 1.0)
    if np.ptp(values) < _SAME:
        value = float(values[0])
        share = 1 - (alpha / 2) ** (1 / values.size)
        return Interval(value - share * value, value + share * (1 - value))
    weights = np.ones_like(values) if weights is None else weights
    drawn = _resample(values, weights, num_resamples, seed)
    lower, upper = np.quantile(drawn.means, _bca_levels(*drawn, alpha))
    return Interval(float(lower), float(upper))


def _resampled_means(
    values: Floats, weights: Floats, num_resamples: int, rng: np.random.Generator
) -> Floats:
    """Weighted means of n draws with replacement, `num_resamples` times, in bounded memory."""
    rows = max(1, _MAX_BLOCK_VALUES // values.size)
    products = values * weights
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, rows):
        stop = min(start + rows, num_resamples)
        drawn = rng.integers(0, values.size, size=(stop - start, values.size))
        means[start:stop] = products[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    return means


def _bca_levels(mean: float, means: Floats, influence: Floats, alpha: float) -> tuple[float, float]:
    """Quantile levels of the resampled means that make the ends of the BCa interval."""
    below = float(np.mean(means < mean) + np.mean(means <= mean)) / 2
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / means.size), 1 - 0.5 / means.size))
    spread = float(np.sum(influence**2) ** 1.5)
    acceleration = float(np.sum(influence**3)) / (6 * spread) if spread else 0.0

    def level(z: float) -> float:
        return _NORMAL.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))

    return level(_NORMAL.inv_cdf(alpha / 2)), level(_NORMAL.inv_cdf(1 - alpha / 2))
