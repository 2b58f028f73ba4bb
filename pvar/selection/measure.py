"""Compute the measures of prompts from rewards and gaps, for stages and file commands."""

import numpy as np
import numpy.typing as npt

from pvar.errors import InputError
from pvar.pairwise import check_scale
from pvar.selection.strategies import MEASURES
from pvar.selection.strategy import FloatArray, Measure, RewardMatrix
from pvar.variance import matrices_by_size


def measure_rewards(rewards: RewardMatrix) -> dict[str, FloatArray]:
    """All measures that can be computed from these rewards: name → (P,), NaN is missing."""
    return {
        name: measure.compute(rewards)
        for name, measure in MEASURES.items()
        if measure.compute is not None
        and measure.min_models <= len(rewards.scales)
        and not (measure.needs_num_tokens and rewards.num_tokens is None)
    }


def measure_gaps(gaps: FloatArray) -> dict[str, FloatArray]:
    """All measures that can be computed from these implicit gaps: name → (P,), NaN is missing.

    gaps: (implicit reward models I, P, pairs of a prompt J), NaN where there is no such pair.
    """
    return {
        name: measure.compute_from_gaps(gaps)
        for name, measure in MEASURES.items()
        if measure.compute_from_gaps is not None and len(measure.implicit_models) <= len(gaps)
    }


def measure_by_prompt(
    prompt_index: npt.NDArray[np.integer],
    rewards: npt.ArrayLike,
    measure: Measure,
    *,
    scale: float = 1.0,
) -> FloatArray:
    """A measure of one model's rewards in long form: one row a response, in any order.

    prompt_index: (R,) number of each row's prompt, 0 … P − 1. rewards: (R,), NaN where missing.
    Returns (P,), P = max(prompt_index) + 1. Raises InputError for a measure that the rewards of one
    model do not determine, ConfigError for a scale that is not positive.
    """
    if measure.compute is None or measure.min_models > 1 or measure.needs_num_tokens:
        raise InputError(
            f"the measure {measure.name} cannot be computed from the rewards of one model; give "
            f"one row per prompt with the columns prompt_id, pvar and {measure.name}"
        )
    tau = check_scale(scale)
    values: FloatArray = np.full(int(prompt_index.max(initial=-1)) + 1, np.nan)
    for prompts, matrix in matrices_by_size(prompt_index, rewards):
        values[prompts] = measure.compute(RewardMatrix(matrix[None], (tau,)))
    return values
