"""Uniform random selection: a baseline that is hard to beat (arXiv 2604.02766).

It selects only prompts with a PVar, as the other strategies do: a prompt with fewer than two
rewards has no PVar and makes no pair.
"""

import numpy as np

from pvar.selection.seeded_order import random_keys
from pvar.selection.strategy import PVAR, FloatArray, IdArray, Strategy, StrategySettings


def _rank(prompt_ids: IdArray, values: FloatArray, settings: StrategySettings) -> FloatArray:
    """Order by a hash of (seed, prompt id)."""
    return np.where(np.isnan(values), np.nan, random_keys(prompt_ids, settings.seed))


RANDOM = Strategy(PVAR, _rank, has_cut=False, draws=True)
