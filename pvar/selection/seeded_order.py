"""Random numbers that depend only on the seed and the prompt id."""

from hashlib import blake2b

import numpy as np

from pvar.selection.strategy import FloatArray, IdArray


def random_keys(prompt_ids: IdArray, seed: int) -> FloatArray:
    """A number in [0, 1) per prompt that depends only on the seed and its id.

    Neither the row order nor other prompts change it, so a new candidate displaces at most one
    other. The id is hashed as text: 7 and "7" get the same number.
    """
    return np.array([_unit_hash(f"{seed}\0{prompt_id}") for prompt_id in prompt_ids.tolist()])


def _unit_hash(text: str) -> float:
    key = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return (key >> 11) * 2.0**-53  # 53 bits: every value is an exact float64 below 1
