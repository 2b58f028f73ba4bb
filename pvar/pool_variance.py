"""How much a pool of prompts can still teach: the distribution of its PVar, on a fixed scale.

Pools are comparable only under the same reward scales. With `select.reward_scale: spread` each
selection has a scale of its own, under which a model whose responses have become alike still looks
as variable as before. So the scales, and the value above which prompts are counted, are those of a
first pool.

Axes: M reward models, P prompts, N responses.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pvar.combine import CombinationRule, combine_preference_variance
from pvar.variance import PairCount, count_saturated

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
MEDIAN = QUANTILES.index(0.5)


class PoolVariance(BaseModel):
    """PVar of the prompts of a pool. What no prompt has is None or empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_prompts: int
    """Prompts with a PVar."""
    scales: tuple[float, ...]
    """(M,) reward scale τ of each model, in units of its rewards."""
    mean: float | None
    quantiles: tuple[float, ...]
    """PVar at each of `QUANTILES`."""
    share_above: float | None
    """Share of the prompts whose PVar is above the median of the first pool."""
    saturated_share: float | None
    """Share of all pairs of responses with |p − ½| > 0.49, over all reward models."""


def pool_variance(
    rewards: npt.ArrayLike,
    *,
    scales: Sequence[float],
    rule: CombinationRule = "mean_pvar",
    first: PoolVariance | None = None,
) -> PoolVariance:
    """The distribution of PVar over the prompts.

    rewards: (M, P, N), non-finite entries missing; scales: (M,) reward scales, which those of
        `first` replace. Without `first` the pool is the first one itself.

    Raises InputError for wrong shapes, ConfigError for scales that are not M positive numbers.
    """
    used = tuple(scales) if first is None else first.scales
    pvar = combine_preference_variance(rewards, scales=used, rule=rule)
    known = pvar[np.isfinite(pvar)]
    quantiles = tuple(float(value) for value in np.quantile(known, QUANTILES)) if known.size else ()
    medians = quantiles if first is None else first.quantiles
    pairs = _count_pairs(np.asarray(rewards), used)
    return PoolVariance(
        num_prompts=known.size,
        scales=used,
        mean=float(known.mean()) if known.size else None,
        quantiles=quantiles,
        share_above=float(np.mean(known > medians[MEDIAN])) if known.size and medians else None,
        saturated_share=pairs.num_saturated / pairs.num_pairs if pairs.num_pairs else None,
    )


def _count_pairs(rewards: npt.NDArray[np.floating], scales: Sequence[float]) -> PairCount:
    counts = [
        count_saturated(model, scale=scale) for model, scale in zip(rewards, scales, strict=True)
    ]
    return PairCount(
        sum(count.num_pairs for count in counts), sum(count.num_saturated for count in counts)
    )
