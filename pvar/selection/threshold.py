"""All prompts whose preference variance is at least a given value, up to the budget."""

import numpy as np

from pvar.errors import ConfigError
from pvar.selection.strategy import PVAR, FloatArray, IdArray, Strategy, StrategySettings
from pvar.variance import MAX_PVAR


def _rank(_: IdArray, pvar: FloatArray, settings: StrategySettings) -> FloatArray:
    """Largest PVar first, none below the threshold; ConfigError where that is outside [0, ¼]."""
    threshold = settings.threshold
    if threshold is None or not 0 <= threshold <= MAX_PVAR:
        raise ConfigError(
            f"the strategy threshold needs a threshold between 0 and {MAX_PVAR} "
            f"(the range of PVar), not {threshold}"
        )
    return np.where(pvar >= threshold, pvar, np.nan)


THRESHOLD = Strategy(PVAR, _rank, budget="is limited by")
