"""Largest difference between the best and the worst reward (arXiv 2502.14560: largest margin)."""

import numpy as np

from pvar.selection.strategy import FloatArray, Measure, RewardMatrix, Strategy, largest_first


def _measure(rewards: RewardMatrix) -> FloatArray:
    """(P,) in units of the reward scale; NaN for fewer than two rewards."""
    enough = np.isfinite(rewards.scaled).sum(axis=1) >= 2
    gap = np.full(len(enough), np.nan)
    some = rewards.scaled[enough]
    with np.errstate(over="ignore"):  # an infinite gap counts as missing
        gap[enough] = np.nanmax(some, axis=1) - np.nanmin(some, axis=1)
    return gap


REWARD_GAP = Strategy(Measure("reward_gap", _measure), largest_first)
