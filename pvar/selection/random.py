"""Uniform choice: the baseline that is hard to beat (arXiv 2604.02766).

It draws from the prompts that have the measure, because the strategies beside it do so too: a
prompt with fewer than two rewards has no PVar and makes no pair.
"""

import numpy as np

from pvar.selection.candidates import Candidates, Measure, Ranking, StrategySettings
from pvar.selection.ranking import measured, random_keys


def rank_random(candidates: Candidates, settings: StrategySettings) -> Ranking:
    """Random order of the prompts that have a PVar."""
    return rank_random_among(candidates, "pvar", settings.seed)


def rank_random_among(candidates: Candidates, measure: Measure, seed: int) -> Ranking:
    """Order of a hash of (seed, prompt id), among the prompts that have the measure."""
    missing = np.isnan(measured(candidates, measure))
    keys = np.where(missing, np.nan, random_keys(candidates.prompt_ids, seed))
    return Ranking(measure, keys, has_cut=False)
