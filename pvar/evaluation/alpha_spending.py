"""Alpha spending: many promotions on one exam, with a bounded probability of any false one.

Of 52 independent looks at one-sided 2.5 %, 1.3 a year promote a model that is no better. So a
budget α is spent over the looks at an exam, which are all comparisons that could have led to a
promotion: look i has the level

    α_i = α · 6 / (π² i²),    Σ α_i = α

By the union bound, the probability that any look at equally good models promotes one is at most α,
however the looks depend on one another: they have the same questions and often the same answers of
the champion. The schedule needs no number of looks in advance. It gets strict fast (of 5 %: 3.0 %,
0.76 %, 0.34 %, and 0.03 % at the tenth look), so a new exam after some promotions is part of it.

The union bound takes each look as if its model were chosen without the exam. From the second on it
is trained from, and compared with, a champion that the exam chose; a champion that was lucky with
these questions is harder to beat, not easier (simulated in tests/benchmarks/exam_wear.py).
Adaptivity beyond that, such as settings that a person tunes until the exam is passed, is what the
number of looks counts, but not what any schedule could repair: arXiv 1506.02629 (Dwork et al.).

The bound at such levels is Student's t over prompts. A bootstrap of 10,000 resamples cannot resolve
quantiles of 0.01 %.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pvar.errors import InputError


def level_of_look(look: int, budget: float) -> float:
    """Level of look number `look` (from 1) at an exam, of the budget in (0, 1).

    Raises InputError for a look before the first.
    """
    if look < 1:
        raise InputError(f"look {look} has no level; looks are numbered from 1")
    return budget * 6 / (math.pi * look) ** 2


def mean_lower_bound(values: ArrayLike, level: float) -> float:
    """One-sided lower confidence bound of a mean in [0, 1], at error `level` in (0, 1).

    `values` are the preferences of prompts, in [0, 1], of shape (num_prompts,); NaN is not judged
    and left out. NaN if nothing was judged. If all values are the same, the exact bound of
    `pvar.evaluation.paired`.
    """
    from scipy import stats

    given: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    given = given[~np.isnan(given)]
    if given.size == 0:
        return math.nan
    mean, spread = float(given.mean()), float(np.ptp(given))
    if spread < 1e-12:
        return mean * math.pow(level, 1 / given.size)
    error = float(given.std(ddof=1)) / math.sqrt(given.size)
    return max(0.0, mean - float(stats.t.isf(level, given.size - 1)) * error)
