"""Building blocks of the strategies: rank by a measure, or by a seeded hash of the id."""

from hashlib import blake2b

import numpy as np

from pvar.errors import InputError
from pvar.selection.candidates import Candidates, FloatArray, IdArray, Measure, Ranking


def largest_first(candidates: Candidates, measure: Measure) -> Ranking:
    """Take the largest values of the measure first."""
    return Ranking(measure, measured(candidates, measure), has_cut=True)


def smallest_first(candidates: Candidates, measure: Measure) -> Ranking:
    """Take the smallest values of the measure first."""
    return Ranking(measure, -measured(candidates, measure), has_cut=True)


def measured(candidates: Candidates, measure: Measure) -> FloatArray:
    """The measure, NaN where it is missing (infinite counts as missing).

    Raises InputError where these candidates do not have the measure at all.
    """
    values: FloatArray | None = getattr(candidates, measure)
    if values is None:
        raise InputError(
            f"the strategy needs the measure {measure}, which these candidates lack; "
            "compute it first, or choose a strategy by PVar (top, bottom, stratified)"
        )
    return np.where(np.isfinite(values), values, np.nan)


def random_keys(prompt_ids: IdArray, seed: int) -> FloatArray:
    """A number in [0, 1) per prompt that depends on the seed and its id alone.

    Neither the row order nor other prompts change it, so a prompt that joins the candidates
    displaces at most one other. The text of an id counts: 7 and "7" get the same number.
    """
    return np.array([_unit_hash(f"{seed}\0{prompt_id}") for prompt_id in prompt_ids.tolist()])


def _unit_hash(text: str) -> float:
    key = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return (key >> 11) * 2.0**-53  # 53 bits: every value is an exact float64 below 1
