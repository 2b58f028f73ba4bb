"""Comparing all responses of many prompts at once, in blocks that stay in the processor's cache.

Everything built on p_ij = σ((r_i − r_j)/τ) needs p_ij − ½ = tanh((r_i − r_j)/2τ)/2 over the pairs
of each prompt. The square is symmetric, so half of the ordered pairs is enough: the pairs at
distance `lag` in the list of responses are one subtraction of two slices, for lag = 1 … n − 1.
tanh never overflows, and for small differences it keeps full relative accuracy, where σ(d) − ½
would cancel.

Axes: P prompts, N responses, B prompts of a block. Rewards arrive as (P, N); a block holds them
transposed, (N, B), so that every operation runs along memory.
"""

import math
from collections.abc import Iterator, Sized
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.errors import ConfigError, InputError

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

BLOCK_REWARDS = 65_536
"""Rewards in a block: 256 KiB of float32, so that it and its scratch fit a 1 MiB L2 cache."""

SCALE_RANGE = (1e-30, 1e30)
"""Scales whose double and reciprocal are normal numbers in float32 too."""


class Block(NamedTuple):
    """Some neighbouring prompts, their responses as rows. The arrays live until the next block."""

    prompts: slice
    columns: Floats
    """(N, B) rewards; 0 where missing."""
    valid: Bools | None
    """(N, B) which rewards are there; None where all are."""
    scratch: Floats
    """(N − 1, B) room for `lagged_tanh`."""


def as_rewards(rewards: npt.ArrayLike, *, ndim: int = 2) -> Floats:
    """Return the rewards as a float32 or float64 array of `ndim` axes, without copying either.

    Half precision becomes float32, whole numbers and lists become float64; None and pandas' NA are
    NaN. Of two axes, rows may have different lengths: the missing ends are NaN. A table must have
    no other columns than rewards. Raises InputError for other types and other shapes.
    """
    is_ragged = ndim == 2 and _is_ragged(rewards)
    array = _padded(rewards) if is_ragged else as_array(rewards, "the rewards")
    if array.dtype == np.object_ and array.size:
        if ndim == 2 and array.ndim == 1 and all(_is_row(row) for row in array):
            array = _padded(array)  # a column of lists
        else:
            array = _with_nan(array)
    if array.ndim != ndim:
        wanted = ", ".join(("num_models", "num_prompts", "num_responses")[-ndim:])
        raise InputError(f"rewards have the shape {array.shape}; expected ({wanted})")
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    raise InputError(
        f"rewards have the type {array.dtype}; expected floats, with NaN where one is missing, and "
        "no column of anything else"
    )


def as_array(values: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    """The values as an array. Raises InputError for lists of which NumPy can make none."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InputError(
            f"{what} are lists of different lengths or depths; give an array of one shape"
        ) from error


def _is_ragged(rewards: npt.ArrayLike) -> bool:
    if not isinstance(rewards, list | tuple):
        return False
    return len({len(row) for row in rewards if isinstance(row, Sized)}) > 1


def _is_row(value: object) -> bool:
    return isinstance(value, Sized) and not isinstance(value, str | bytes)


def _with_nan(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers of any kind as float64, with NaN for nulls; the values as they are if there is
    anything else among them."""
    flat = [
        math.nan if value is None or type(value).__name__ == "NAType" else value  # pandas' NA
        for value in values.ravel()
    ]
    if not all(isinstance(value, Real) and not isinstance(value, bool) for value in flat):
        return values
    return np.array(flat, np.float64).reshape(values.shape)


def _padded(rewards: Any) -> Floats:
    """(P, N) rewards of P rows with at most N."""
    rows = [as_rewards(row, ndim=1) if len(row) else np.empty(0) for row in rewards]
    result = np.full((len(rows), max(map(len, rows))), np.nan)
    for target, row in zip(result, rows, strict=True):
        target[: len(row)] = row
    return result


def as_mask(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> Bools | None:
    """Return the mask (True: use the reward) as booleans; InputError if it does not fit."""
    if mask is None:
        return None
    array = as_array(mask, "the rows of the mask")
    if array.shape != shape or array.dtype != np.bool_:
        raise InputError(
            f"the mask is {array.dtype} of shape {array.shape}; "
            f"expected bool of the rewards' shape {shape}, True where the reward counts"
        )
    return array


def check_scale(scale: float) -> float:
    """Return the reward scale τ; ConfigError unless it is a usable positive number."""
    low, high = SCALE_RANGE
    if not (math.isfinite(scale) and low <= scale <= high):
        raise ConfigError(f"scale is {scale}; expected a positive number from {low:g} to {high:g}")
    return float(scale)


def blocks(rewards: Floats, mask: Bools | None) -> Iterator[Block]:
    """Cut (P, N) rewards into blocks; masked and non-finite entries become missing."""
    num_prompts, num_responses = rewards.shape
    width = max(1, min(num_prompts, BLOCK_REWARDS // max(1, num_responses)))
    columns = np.empty((num_responses, width), rewards.dtype)
    scratch = np.empty((max(0, num_responses - 1), width), rewards.dtype)
    for start in range(0, num_prompts, width):
        prompts = slice(start, min(start + width, num_prompts))
        size = prompts.stop - start
        view = columns[:, :size]
        np.copyto(view, rewards[prompts].T)
        valid = np.isfinite(view)
        if mask is not None:
            valid &= mask[prompts].T
        complete = bool(valid.all())
        if not complete:
            np.copyto(view, 0, where=~valid)
        yield Block(prompts, view, None if complete else valid, scratch[:, :size])


def lagged_tanh(block: Block, scale: float) -> Iterator[tuple[int, Floats]]:
    """Yield (lag, tanh((r_{i+lag} − r_i)/2τ)) for lag = 1 … N − 1, as arrays (N − lag, B).

    Pairs with a missing reward give 0. Each array is overwritten by the next: use it at once.
    """
    half_inverse = 0.5 / scale
    for lag in range(1, len(block.columns)):
        terms = block.scratch[: len(block.columns) - lag]
        with np.errstate(over="ignore"):  # an infinite difference is a sure preference: tanh = ±1
            np.subtract(block.columns[lag:], block.columns[:-lag], out=terms)
            np.multiply(terms, half_inverse, out=terms)
        np.tanh(terms, out=terms)
        if block.valid is not None:
            terms *= block.valid[lag:] & block.valid[:-lag]
        yield lag, terms


def count_valid(block: Block) -> npt.NDArray[np.intp]:
    """Responses with a reward, per prompt of the block."""
    if block.valid is None:
        return np.full(block.columns.shape[1], len(block.columns), np.intp)
    return np.asarray(block.valid.sum(axis=0), np.intp)


def mean_over_pairs(squares: Floats, block: Block) -> Floats:
    """Turn (B,) sums of tanh² over unordered pairs into means of (p − ½)²; NaN without a pair.

    (p − ½)² = tanh²/4, and there are n(n − 1)/2 unordered pairs: squares / (2n(n − 1)).
    """
    num_valid = count_valid(block)
    with np.errstate(invalid="ignore"):  # 0/0 for fewer than two responses
        return np.asarray(squares / (2 * num_valid * (num_valid - 1)).astype(squares.dtype))
