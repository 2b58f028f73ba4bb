"""Quantities of a prompt's pairs under a tuned policy, from their implicit gaps.

Axes: P prompts, J pairs of a prompt. NaN is missing.
"""

import numpy as np

from pvar.selection.strategy import FloatArray


def pair_losses(gaps: FloatArray) -> FloatArray:
    """DPO's loss −log σ(gap) of each pair (arXiv 2305.18290); the gap contains β."""
    losses = np.full(gaps.shape, np.nan)
    np.logaddexp(0, -gaps, out=losses, where=np.isfinite(gaps))
    return losses


def mean_of_known(values: FloatArray) -> FloatArray:
    """(P,) mean of the known values of each prompt, given (P, J); NaN for a prompt without one."""
    is_known = np.isfinite(values)
    num_known = is_known.sum(axis=1)
    mean: FloatArray = np.full(len(values), np.nan)
    sums = np.where(is_known, values, 0).sum(axis=1)
    np.divide(sums, num_known, out=mean, where=num_known > 0)
    return mean
