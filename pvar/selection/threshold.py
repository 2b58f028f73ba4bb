"""All prompts whose preference variance is at least a given value, up to the budget."""

import numpy as np

from pvar.errors import ConfigError
from pvar.selection.candidates import Candidates, Ranking, StrategySettings
from pvar.selection.ranking import measured

MAX_PVAR = 0.25


def rank_threshold(candidates: Candidates, settings: StrategySettings) -> Ranking:
    """Largest PVar first, none below the threshold; ConfigError where that is outside [0, ¼]."""
    threshold = settings.threshold
    if threshold is None or not 0 <= threshold <= MAX_PVAR:
        raise ConfigError(
            f"the strategy threshold needs a threshold between 0 and {MAX_PVAR} "
            f"(the range of PVar), not {threshold}"
        )
    pvar = measured(candidates, "pvar")
    return Ranking("pvar", np.where(pvar >= threshold, pvar, np.nan), has_cut=True)
