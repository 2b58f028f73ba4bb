"""Preference variance (PVar) of a prompt, its standard error, saturation and ties.

For n responses with rewards r_i, p_ij = σ((r_i − r_j)/τ) is the probability that i is preferred to
j, and (arXiv 2510.13022)

    PVar = 1/(n(n−1)) · Σ_{i≠j} (p_ij − ½)²,      0 ≤ PVar ≤ ¼.

It is the U-statistic of the kernel h(a, b) = (σ((a − b)/τ) − ½)²: unbiased for every n ≥ 2, so that
prompts with different numbers of responses are comparable, and independent of the order of the
responses. p_ii = ½ is not a pair of responses and is left out.

Standard error: the jackknife, that is the spread of PVar when one response is left out (Arvesen
1969). With s_i = Σ_{j≠i} h(r_i, r_j),

    stderr² = 4 / (n(n−1)(n−2)²) · Σ_i (s_i − s̄)².

Its expectation is not below the true variance (Efron & Stein 1981), but for few responses it is
noisy: for normal rewards with standard deviation τ, PVar ± t · stderr with Student's 97.5 %
quantile for n − 1 degrees of freedom covers the truth in 90 % of the cases at n = 5, 92 % at n = 8,
93 % at n = 16 and 95 % at n = 64 (1.96 instead of t: 85, 89, 91 and 94 %). There is none for n = 2.

Missing rewards (masked, NaN, infinite) are left out, never zero. Axes: P prompts, N responses.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.errors import ConfigError, InputError
from pvar.pairwise import (
    Block,
    Floats,
    as_array,
    as_mask,
    as_rewards,
    blocks,
    check_scale,
    count_valid,
    lagged_tanh,
    mean_over_pairs,
)

MAX_PVAR = 0.25

SATURATED = 0.49
"""|p − ½| above which a preference counts as certain."""


def preference_variance(
    rewards: npt.ArrayLike, *, scale: float = 1.0, mask: npt.ArrayLike | None = None
) -> Floats:
    """PVar of each prompt.

    rewards: (P, N) floats: an array, lists, a table of pandas, polars or pyarrow with a column for
        each response, or a column of lists. Lists may have different lengths. float32 is computed
        and returned in float32, anything else in float64 (float16 in float32). NaN, nulls and
        infinite entries count as missing.
    scale: the reward scale τ, in units of the rewards (see `pvar.scale`).
    mask: (P, N) booleans, True where the reward counts.

    Returns (P,) values in [0, ¼], NaN where fewer than two rewards are valid. Raises InputError for
    rewards or a mask of the wrong shape or type, ConfigError for a scale that is not positive.
    Memory beyond the result is a few cache-sized blocks.
    """
    array = as_rewards(rewards)
    tau = check_scale(scale)
    result = np.empty(len(array), array.dtype)
    for block in blocks(array, as_mask(mask, array.shape)):
        result[block.prompts] = mean_over_pairs(_sum_squares(block, tau), block)
    return result


def preference_variance_stderr(
    rewards: npt.ArrayLike, *, scale: float = 1.0, mask: npt.ArrayLike | None = None
) -> Floats:
    """Jackknife standard error of each prompt's PVar; arguments and errors as there.

    Returns (P,) values ≥ 0, NaN where fewer than three rewards are valid.
    """
    array = as_rewards(rewards)
    tau = check_scale(scale)
    result = np.empty(len(array), array.dtype)
    for block in blocks(array, as_mask(mask, array.shape)):
        sums = response_sums(lagged_tanh(block, tau), block)
        result[block.prompts] = jackknife_stderr(sums, block)
    return result


class PairCount(NamedTuple):
    """Unordered pairs of responses of the same prompt."""

    num_pairs: int
    num_saturated: int
    """Pairs with |p − ½| > 0.49."""


def count_saturated(
    rewards: npt.ArrayLike, *, scale: float = 1.0, mask: npt.ArrayLike | None = None
) -> PairCount:
    """Count pairs and certain pairs over all prompts; arguments as in `preference_variance`."""
    array = as_rewards(rewards)
    tau = check_scale(scale)
    num_pairs = num_saturated = 0
    for block in blocks(array, as_mask(mask, array.shape)):
        valid = count_valid(block)
        num_pairs += int((valid * (valid - 1)).sum()) // 2
        for _, terms in lagged_tanh(block, tau):
            num_saturated += int(np.count_nonzero(np.abs(terms) > 2 * SATURATED))
    return PairCount(num_pairs, num_saturated)


def saturation_share(
    rewards: npt.ArrayLike, *, scale: float = 1.0, mask: npt.ArrayLike | None = None
) -> float:
    """Share of all pairs with |p − ½| > 0.49; NaN without a pair.

    Near 1 the scale is too small: PVar then only counts which side of a tie the pairs fall on, and
    a selection by it decides between equals.
    """
    count = count_saturated(rewards, scale=scale, mask=mask)
    return count.num_saturated / count.num_pairs if count.num_pairs else float("nan")


class CutTies(NamedTuple):
    """Ties at the edge of a selection by PVar."""

    value: float
    """PVar of the last prompt selected."""
    num_tied: int
    """Prompts with exactly that PVar."""
    num_taken: int
    """Those of them that are selected: by the tie-break, if fewer than `num_tied`."""


def ties_at_cut(values: npt.ArrayLike, num_selected: int) -> CutTies:
    """Ties where the `num_selected` highest of the values (P,) end; NaN is never selected.

    Raises ConfigError unless 1 ≤ num_selected ≤ number of values that are not NaN.
    """
    array = np.asarray(values)
    present = array[~np.isnan(array)]
    if not 1 <= num_selected <= len(present):
        raise ConfigError(
            f"num_selected is {num_selected}; expected 1 to {len(present)}, the number of prompts "
            "with a preference variance"
        )
    cut = np.partition(present, len(present) - num_selected)[len(present) - num_selected]
    num_above = int(np.count_nonzero(present > cut))
    return CutTies(float(cut), int(np.count_nonzero(present == cut)), num_selected - num_above)


class PromptVariances(NamedTuple):
    """Results for rewards in long form."""

    num_responses: npt.NDArray[np.int32]
    """(P,) responses with a reward."""
    pvar: npt.NDArray[np.float64]
    stderr: npt.NDArray[np.float64]
    pairs: PairCount
    """Over all prompts."""


def variance_by_prompt(
    prompt_index: npt.NDArray[np.integer], rewards: npt.ArrayLike, *, scale: float = 1.0
) -> PromptVariances:
    """PVar from the long form: one row per response, in any order.

    prompt_index: (R,) number of each row's prompt, 0 … P − 1. rewards: (R,), NaN where missing.
    Returns arrays of length P = max(prompt_index) + 1. Raises as `preference_variance`.
    """
    num_prompts = int(prompt_index.max(initial=-1)) + 1
    pvar, stderr = np.full((2, num_prompts), np.nan)
    num_responses = np.zeros(num_prompts, np.int32)
    num_pairs = num_saturated = 0
    for prompts, matrix in matrices_by_size(prompt_index, rewards):
        pvar[prompts] = preference_variance(matrix, scale=scale)
        stderr[prompts] = preference_variance_stderr(matrix, scale=scale)
        num_responses[prompts] = np.isfinite(matrix).sum(axis=1)
        count = count_saturated(matrix, scale=scale)
        num_pairs += count.num_pairs
        num_saturated += count.num_saturated
    return PromptVariances(num_responses, pvar, stderr, PairCount(num_pairs, num_saturated))


class TableVariances(NamedTuple):
    """One row per prompt, as columns: `pandas.DataFrame(table._asdict())` makes a table of it."""

    prompt_id: npt.NDArray[Any]
    """(P,) sorted."""
    num_responses: npt.NDArray[np.int32]
    """(P,) responses with a reward."""
    pvar: npt.NDArray[np.float64]
    stderr: npt.NDArray[np.float64]


def variance_table(
    prompt_ids: npt.ArrayLike, rewards: npt.ArrayLike, *, scale: float = 1.0
) -> TableVariances:
    """PVar from two columns of a table with one row per response, in any order.

    prompt_ids: (R,) texts or numbers. rewards: (R,) floats, NaN where missing. Columns of pandas,
    polars and pyarrow can be given as they are. Raises InputError for columns of different lengths
    or ids that are missing or cannot be sorted, and as `preference_variance`.
    """
    ids = as_array(prompt_ids, "the prompt ids")
    if ids.ndim != 1:
        raise InputError(f"prompt ids have the shape {ids.shape}; expected (num_responses,)")
    if ids.dtype.kind == "f" and np.isnan(ids).any():  # as pandas has numbers of which one is null
        raise InputError(
            f"{np.isnan(ids).sum()} prompt ids are missing (NaN); leave out their rows"
        )
    try:
        names, index = np.unique(ids, return_inverse=True)
    except TypeError as error:
        raise InputError(
            f"the prompt ids cannot be sorted ({error}); give texts, or numbers, and none missing"
        ) from error
    found = variance_by_prompt(index, rewards, scale=scale)
    return TableVariances(names, found.num_responses, found.pvar, found.stderr)


def matrices_by_size(
    prompt_index: npt.NDArray[np.integer], rewards: npt.ArrayLike
) -> Iterator[tuple[npt.NDArray[np.intp], Floats]]:
    """The long form as matrices: one for all prompts with the same number of rows.

    prompt_index: (R,) number of each row's prompt. rewards: (R,). Yields the prompts (P,) and their
    rewards (P, N), each prompt's in the order of its rows. Raises InputError for other shapes.
    """
    array = as_rewards(rewards, ndim=1)
    if prompt_index.shape != array.shape:
        raise InputError(f"{len(prompt_index)} prompt numbers for {len(array)} rewards")
    num_rows = np.bincount(prompt_index)
    by_prompt = array[np.argsort(prompt_index, kind="stable")]
    first_row = np.cumsum(num_rows) - num_rows
    for size in np.unique(num_rows[num_rows > 0]):
        prompts = np.flatnonzero(num_rows == size)
        yield prompts, by_prompt[first_row[prompts, None] + np.arange(size)]


def _sum_squares(block: Block, scale: float) -> Floats:
    """(B,) sum of tanh² over the unordered pairs."""
    total = np.zeros(block.columns.shape[1], block.columns.dtype)
    for _, terms in lagged_tanh(block, scale):
        total += np.square(terms, out=terms).sum(axis=0)
    return total


def response_sums(preferences: Iterable[tuple[int, Floats]], block: Block) -> Floats:
    """(N, B) s_i: sum of (p_ij − ½)² over the other responses j of the same prompt.

    preferences: 2p_ij − 1 pair by pair, as `pvar.pairwise.lagged_tanh` yields them; overwritten.
    """
    sums = np.zeros_like(block.columns)
    for lag, terms in preferences:
        np.square(terms, out=terms)
        sums[:-lag] += terms
        sums[lag:] += terms
    sums *= 0.25
    return sums


def jackknife_stderr(sums: Floats, block: Block) -> Floats:
    """(B,) standard error from the sums s_i (N, B), which it overwrites: the formula at the top."""
    num_valid = count_valid(block).astype(sums.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN for fewer than three responses
        deviations = np.subtract(sums, sums.sum(axis=0) / num_valid, out=sums)
        if block.valid is not None:
            deviations *= block.valid
        squares = np.square(deviations, out=deviations).sum(axis=0)
        variance = 4 * squares / (num_valid * (num_valid - 1) * (num_valid - 2) ** 2)
    return np.asarray(np.where(num_valid > 2, np.sqrt(variance), np.nan), sums.dtype)
