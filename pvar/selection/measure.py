"""Compute the measures of prompts from rewards, for stages and file commands."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pvar.pairwise import as_rewards
from pvar.selection.strategies import MEASURES
from pvar.selection.strategy import FloatArray, Measure, RewardMatrix


def measure_rewards(rewards: RewardMatrix) -> dict[str, FloatArray]:
    """All measures that can be computed from these rewards: name → (P,), NaN is missing."""
    return {
        name: measure.compute(rewards)
        for name, measure in MEASURES.items()
        if measure.compute is not None and measure.min_models <= len(rewards.scales)
    }


def measure_by_prompt(
    prompt_index: npt.NDArray[np.integer],
    rewards: npt.ArrayLike,
    measures: Sequence[Measure],
    *,
    scale: float = 1.0,
) -> dict[str, FloatArray]:
    """Measures of one model's rewards in long form: one row per response, in any order.

    prompt_index: (R,) number of each row's prompt, 0 … P − 1. rewards: (R,), NaN where missing.
    Returns name → (P,), P = max(prompt_index) + 1, for all measures that need one model only.
    Raises ConfigError for a scale that is not positive.
    """
    array = as_rewards(rewards, ndim=1)
    num_rows = np.bincount(prompt_index)
    by_prompt = array[np.argsort(prompt_index, kind="stable")]
    first_row = np.cumsum(num_rows) - num_rows
    computed = [(measure.name, measure.compute) for measure in measures if measure.min_models == 1]
    found: dict[str, FloatArray] = {
        name: np.full(len(num_rows), np.nan) for name, compute in computed if compute is not None
    }
    for size in np.unique(num_rows[num_rows > 0]):
        prompts = np.flatnonzero(num_rows == size)
        rows = by_prompt[first_row[prompts, None] + np.arange(size)]
        matrix = RewardMatrix(rows[None], (scale,))
        for name, compute in computed:
            if compute is not None:
                found[name][prompts] = compute(matrix)
    return found
