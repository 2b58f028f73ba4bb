"""Largest disagreement between reward models: active selection's classical criterion."""

from pvar.combine import disagreement
from pvar.selection.strategy import FloatArray, Measure, RewardMatrix, Strategy, largest_first


def _measure(rewards: RewardMatrix) -> FloatArray:
    """(P,) from 0 to ¼."""
    return disagreement(rewards.rewards, scales=rewards.scales)


DISAGREEMENT = Strategy(Measure("disagreement", _measure, min_models=2), largest_first)
