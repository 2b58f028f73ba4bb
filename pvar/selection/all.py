"""Every prompt, with or without PVar: the full data set as a baseline."""

import numpy as np

from pvar.selection.strategy import PVAR, FloatArray, IdArray, Strategy, StrategySettings


def _rank(prompt_ids: IdArray, _: FloatArray, __: StrategySettings) -> FloatArray:
    """Equal priorities, so that the prompts are ordered by id."""
    return np.zeros(len(prompt_ids))


ALL = Strategy(PVAR, _rank, has_cut=False, budget="ignores")
