"""Largest variance of the rewards: the limit of PVar, up to a factor, for small differences."""

import numpy as np

from pvar.selection.strategy import FloatArray, Measure, RewardMatrix, Strategy, largest_first


def _measure(rewards: RewardMatrix) -> FloatArray:
    """(P,) unbiased, in squared units of the reward scale; NaN for fewer than two rewards."""
    enough = np.isfinite(rewards.scaled).sum(axis=1) >= 2
    variance = np.full(len(enough), np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # one that is not finite counts as missing
        variance[enough] = np.nanvar(rewards.scaled[enough], axis=1, ddof=1)
    return variance


REWARD_VARIANCE = Strategy(Measure("reward_variance", _measure), largest_first)
