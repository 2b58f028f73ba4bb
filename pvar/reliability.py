"""How well PVar from K responses is known: split-half reliability.

Of each prompt with at least 2K rewards, two disjoint halves of K are drawn, and PVar is computed
from each. Both are measurements of the same prompts with K responses, so their correlation over
prompts is the reliability of one such measurement (Spearman 1910; no correction for length is
needed, because each half has the K that is asked about). Its square root bounds the correlation
with the PVar of infinitely many responses. What a selection cares about is the overlap: the share
of the prompts that one half puts into the top tenth which the other half puts there, too; chance
is a tenth.

Means over random splits. Axes: P prompts, N responses.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.errors import InputError
from pvar.pairwise import as_rewards
from pvar.variance import preference_variance

MIN_PROMPTS = 10
"""Below so many prompts nothing is said."""

SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""The numbers of responses K that are shown, as far as there are twice as many."""


class Reliability(NamedTuple):
    """How well PVar from K responses agrees with PVar from K others."""

    num_responses: int
    """K."""
    num_prompts: int
    """Prompts with at least 2K rewards, which are the basis."""
    spearman: float
    """Rank correlation of the halves, mean over splits; NaN if a half is constant."""
    overlap: float
    """Share of the top prompts that both halves have in common, in [0, 1]."""


def split_half_reliability(
    rewards: npt.ArrayLike,
    num_responses: int,
    *,
    scale: float = 1.0,
    top_share: float = 0.1,
    num_splits: int = 20,
    seed: int = 0,
) -> Reliability:
    """Reliability of PVar from `num_responses` of the rewards (P, N); NaN is missing.

    `top_share` is the share of prompts that counts as the top. Raises InputError with fewer than
    ten prompts with twice as many rewards, and the errors of `preference_variance`.
    """
    array = as_rewards(rewards)
    is_known = np.isfinite(array)
    usable = array[is_known.sum(axis=1) >= 2 * num_responses]
    if num_responses < 2 or len(usable) < MIN_PROMPTS:
        raise InputError(
            f"{len(usable)} prompts have {2 * num_responses} rewards or more, two halves of "
            f"{num_responses}; at least {MIN_PROMPTS} prompts and halves of 2 are needed"
        )
    rng = np.random.default_rng(seed)
    num_top = max(1, round(top_share * len(usable)))
    correlations, overlaps = [], []
    for _ in range(num_splits):
        first, second = (
            preference_variance(half, scale=scale) for half in _halves(usable, num_responses, rng)
        )
        correlations.append(_spearman(first, second))
        overlaps.append(
            len(top_prompts(first, num_top, rng) & top_prompts(second, num_top, rng)) / num_top
        )
    return Reliability(
        num_responses, len(usable), float(np.mean(correlations)), float(np.mean(overlaps))
    )


def top_prompts(pvar: npt.NDArray[np.floating], number: int, rng: np.random.Generator) -> set[int]:
    """Rows of the highest PVars. Ties are broken at random: equal PVars are no agreement."""
    return set(np.lexsort((rng.random(pvar.size), -pvar))[:number].tolist())


def _halves(
    rewards: npt.NDArray[np.floating], size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Two disjoint draws of `size` known rewards of each prompt."""
    keys = np.where(np.isfinite(rewards), rng.random(rewards.shape), np.inf)
    drawn = np.take_along_axis(rewards, np.argsort(keys, axis=1)[:, : 2 * size], axis=1)
    return drawn[:, :size], drawn[:, size:]


def _spearman(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)
