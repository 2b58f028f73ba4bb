"""The same number from each decile of preference variance, at random within a decile.

Deciles are equal parts of the ranks (equal PVar in the order of the ids), so heavy ties, as at
PVar 0 or ¼, do not empty a stratum.
"""

import numpy as np

from pvar.selection.seeded_order import random_keys
from pvar.selection.strategy import PVAR, FloatArray, IdArray, Strategy, StrategySettings

NUM_STRATA = 10


def _rank(prompt_ids: IdArray, pvar: FloatArray, settings: StrategySettings) -> FloatArray:
    """Round by round: the first round takes one of each decile, the second the next, …"""
    rows = np.flatnonzero(~np.isnan(pvar))
    ids = prompt_ids[rows]
    by_pvar = np.lexsort((ids, pvar[rows]))
    stratum = np.empty(len(rows), dtype=np.int64)
    stratum[by_pvar] = np.arange(len(rows)) * NUM_STRATA // max(len(rows), 1)

    keys = random_keys(ids, settings.seed)
    by_stratum = np.lexsort((ids, keys, stratum))
    starts = np.searchsorted(stratum[by_stratum], np.arange(NUM_STRATA))
    place = np.empty(len(rows), dtype=np.int64)
    place[by_stratum] = np.arange(len(rows)) - starts[stratum[by_stratum]]

    by_round = np.lexsort((ids, keys, place))
    priority = np.full(len(prompt_ids), np.nan)
    priority[rows[by_round]] = -np.arange(len(rows), dtype=np.float64)
    return priority


STRATIFIED = Strategy(PVAR, _rank, has_cut=False, draws=True)
