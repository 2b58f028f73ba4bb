"""All prompts whose preference variance is at least a threshold, up to the budget."""

import numpy as np

from pvar.errors import ConfigError
from pvar.selection.strategy import PVAR, FloatArray, IdArray, Strategy, StrategySettings
from pvar.variance import MAX_PVAR


def _rank(_: IdArray, pvar: FloatArray, settings: StrategySettings) -> FloatArray:
    """Largest PVar first, none below the threshold; ConfigError for one outside [0, ¼]."""
    threshold = settings.threshold
    if threshold is None or not 0 <= threshold <= MAX_PVAR:
        raise ConfigError(
            f"threshold is {threshold}; the strategy threshold needs a value between 0 and "
            f"{MAX_PVAR} (the range of PVar)"
        )
    return np.where(pvar >= threshold, pvar, np.nan)


THRESHOLD = Strategy(PVAR, _rank, budget="is limited by")
