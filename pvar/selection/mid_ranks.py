"""Ranks of values from 0 to 1, by which quantities of different units are compared."""

import numpy as np

from pvar.selection.strategy import FloatArray


def mid_ranks(values: FloatArray) -> FloatArray:
    """(P,) share of the known values that are smaller, plus half the share of the equal ones.

    The rank lies between 0 and 1, changes sides with the sign (the rank of −v is 1 minus that of
    v), and does not depend on the row order. Missing values (NaN) have no rank and do not count.
    """
    is_known = np.isfinite(values)
    known = values[is_known]
    ascending = np.sort(known)
    below = np.searchsorted(ascending, known, side="left")
    not_above = np.searchsorted(ascending, known, side="right")
    ranks = np.full(len(values), np.nan)
    ranks[is_known] = (below + not_above) / (2 * max(len(known), 1))
    return ranks
