"""Correlation of PVar with other measures of prompts: reward gap, length, disagreement, …

Pearson's r sees linear relations and suffers from outliers; Spearman's ρ is Pearson's r of the
ranks (ties share their mean rank) and is what a selection by rank cares about. Its interval is
Fisher's, on atanh ρ with standard error √((1 + ρ²/2)/(n − 3)) (Bonett & Wright 2000,
doi:10.1007/BF02294183). It has no width where |ρ| = 1, and six prompts in the same order are no
proof of that, so there it is not known. Correlations are over the prompts where both measures are
present.

Axes: P prompts, K measures.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.errors import ConfigError, InputError

Matrix = npt.NDArray[np.float64]

_SAME = 1e-12
"""What is missing to |ρ| = 1 is rounding below this."""


class CorrelationTable(NamedTuple):
    """Correlations of every measure with every other, ready to be drawn as a heat map."""

    names: tuple[str, ...]
    """K names, in the order of the axes."""
    num_prompts: npt.NDArray[np.int64]
    """(K, K) prompts with both measures."""
    pearson: Matrix
    """(K, K); NaN where a measure is constant or fewer than three prompts have both."""
    spearman: Matrix
    spearman_lower: Matrix
    """(K, K) ends of the interval; NaN for fewer than four prompts and where |ρ| = 1."""
    spearman_upper: Matrix


def correlation_table(
    measures: Mapping[str, npt.ArrayLike], *, confidence: float = 0.95
) -> CorrelationTable:
    """Correlate measures of the same prompts with each other.

    measures: name → (P,) values, the same prompts in the same order, NaN or infinite where missing.
    Raises InputError for fewer than two measures or different lengths, ConfigError for a confidence
    outside (0, 1).
    """
    columns = _checked(measures)
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}; expected a number between 0 and 1")
    size = len(columns)
    num_prompts = np.zeros((size, size), np.int64)
    pearson, spearman = np.full((2, size, size), np.nan)
    for first in range(size):
        for second in range(first, size):
            x, y = _both_present(columns[first], columns[second])
            here = ([first, second], [second, first])
            num_prompts[here] = len(x)
            pearson[here] = _pearson(x, y)
            spearman[here] = _spearman(x, y)
    lower, upper = _spearman_interval(spearman, num_prompts, confidence)
    return CorrelationTable(tuple(measures), num_prompts, pearson, spearman, lower, upper)


def _checked(measures: Mapping[str, npt.ArrayLike]) -> list[Matrix]:
    columns = [np.asarray(values, np.float64) for values in measures.values()]
    if len(columns) < 2:
        raise InputError(f"{len(columns)} measures; a correlation needs at least two")
    shapes = {name: column.shape for name, column in zip(measures, columns, strict=True)}
    if len(set(shapes.values())) > 1 or columns[0].ndim != 1:
        raise InputError(f"measures have different shapes: {shapes}; give one value per prompt")
    return columns


def _both_present(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    present = np.isfinite(x) & np.isfinite(y)
    return x[present], y[present]


def _pearson(x: Matrix, y: Matrix) -> float:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))


def _spearman(x: Matrix, y: Matrix) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(x), rankdata(y))


def _spearman_interval(
    spearman: Matrix, num_prompts: npt.NDArray[np.int64], confidence: float
) -> tuple[Matrix, Matrix]:
    from scipy.special import ndtri

    with np.errstate(divide="ignore", invalid="ignore"):  # atanh(±1), and fewer than four prompts
        stderr = np.sqrt((1 + spearman**2 / 2) / np.where(num_prompts > 3, num_prompts - 3, np.nan))
        reach = float(ndtri((1 + confidence) / 2)) * stderr
        center = np.arctanh(np.where(1 - np.abs(spearman) < _SAME, np.nan, spearman))
        return np.tanh(center - reach), np.tanh(center + reach)
