"""Compute the PVar of each prompt from a file of rewards.

A Parquet file with one row per response (long format) can be larger than memory. Of a file with one
row per prompt, ids and rewards must fit.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.commands.columns import NO_PROMPT_ID, REWARD, STRINGS, Columns, describe_no_id
from flows.commands.parquet_columns import (
    first_row_without_id,
    is_read_by_row,
    read_columns,
    read_lists_or_rows,
    row_counts_of,
    schema_of,
)
from flows.commands.parquet_types import plain_type
from infra.columnar import NotUtf8Error, iter_rewards, variance_from_file
from pvar.errors import InputError
from pvar.row_counts import RowCounts
from pvar.selection import Measure, measure_by_prompt
from pvar.selection.strategy import PVAR
from pvar.variance import PairCount, variance_by_prompt


class Variances(NamedTuple):
    """PVar by prompt. Arrays have the shape (num_prompts,)."""

    prompt_ids: NDArray[Any]
    """Strings or integers, ascending."""
    num_responses: NDArray[np.int32]
    """Number of responses with a reward."""
    pvar: NDArray[np.float64]
    """NaN for fewer than two responses."""
    stderr: NDArray[np.float64]
    """NaN for fewer than three responses."""
    num_missing: int
    """Rewards that are missing."""
    pairs: PairCount
    """Pairs of responses of all prompts."""
    row_counts: RowCounts
    """Counts of rows of the file."""
    first_problem: str | None
    """Description of the first rejected row's problem."""

    @property
    def num_rewards(self) -> int:
        """Number of rewards that are not missing."""
        return int(self.num_responses.sum())


def read_variances(path: Path, *, scale: float) -> Variances:
    """Compute PVar from the columns prompt_id and reward, or from lists of rewards.

    Raises InputError if the file cannot be read or lacks a column, and ConfigError if the scale is
    not positive.
    """
    if is_long_parquet(path, (REWARD,)):
        try:
            return _from_long_parquet(path, scale)
        except NotUtf8Error:
            pass  # the rows are read one by one, which counts those
    return _from_columns(read_lists_or_rows(path, (REWARD,)), scale)


def is_long_parquet(path: Path, number_columns: Collection[str]) -> bool:
    """Whether the file is Parquet with one reward per row, which can be larger than memory."""
    if is_read_by_row(path, number_columns):
        return False
    names = schema_of(path).names
    return REWARD in names and (PVAR.name not in names or PVAR.name not in number_columns)


def _from_columns(columns: Columns, scale: float) -> Variances:
    rewards = columns.require_rewards()
    result = variance_by_prompt(columns.prompt_index, rewards, scale=scale)
    return Variances(
        columns.prompt_ids,
        result.num_responses,
        result.pvar,
        result.stderr,
        int(np.count_nonzero(~np.isfinite(rewards))),
        result.pairs,
        columns.row_counts,
        columns.first_problem,
    )


def _from_long_parquet(path: Path, scale: float) -> Variances:
    kind = _kind_of_ids(path)
    table = variance_from_file(path, scale=scale)
    _refuse_no_rows(path, table.num_rows, table.num_without_id)
    ids = table.prompt_ids.astype(kind, copy=False)
    order = np.argsort(ids)
    return Variances(
        ids[order],
        table.num_responses[order],
        table.pvar[order],
        table.stderr[order],
        table.num_missing,
        PairCount(table.num_pairs, table.num_saturated),
        row_counts_of(table.num_rows, table.num_without_id),
        _first_problem(path, table.num_without_id),
    )


def read_reward_matrix(path: Path) -> NDArray[np.float64]:
    """The rewards of each prompt, (num_prompts, most rewards of a prompt), in the file's order.

    NaN is a missing reward, or a response that a prompt does not have. The file must fit into
    memory. Raises the errors of `read_variances`.
    """
    columns = read_columns(path, (REWARD,))
    rewards, prompts = columns.require_rewards(), columns.prompt_index
    order = np.argsort(prompts, kind="stable")
    counts = np.bincount(prompts, minlength=len(columns.prompt_ids))
    starts = np.cumsum(counts) - counts
    within = np.arange(len(prompts)) - np.repeat(starts, counts)
    matrix = np.full((len(counts), int(counts.max(initial=0))), np.nan)
    matrix[prompts[order], within] = rewards[order]
    return matrix


class MeasuredFile(NamedTuple):
    """One measure by prompt, for selection."""

    prompt_ids: NDArray[Any]
    """(num_prompts,) strings or integers, in no particular order."""
    values: NDArray[np.floating[Any]]
    """(num_prompts,)"""
    num_rewards: int
    row_counts: RowCounts
    """In rows of the file."""
    first_problem: str | None
    """Description of the first rejected row's problem."""


def read_measure(path: Path, measure: Measure, *, scale: float) -> MeasuredFile:
    """Compute a measure from Parquet with about 60 bytes of memory per prompt.

    The number of rows does not matter. Raises the same errors as `read_variances`, and NotUtf8Error
    for a file whose rows must be read one by one.
    """
    kind = _kind_of_ids(path)
    ids: list[NDArray[Any]] = []
    values: list[NDArray[Any]] = []
    num_rows = num_without_id = num_missing = 0
    for part in iter_rewards(path):
        ids.append(part.prompt_ids.astype(kind, copy=False))
        values.append(measure_by_prompt(part.prompt_index, part.rewards, measure, scale=scale))
        num_rows += part.num_rows
        num_without_id += part.num_without_id
        num_missing += part.num_missing
    _refuse_no_rows(path, num_rows, num_without_id)
    row_counts = row_counts_of(num_rows, num_without_id)
    return MeasuredFile(
        _joined(ids),
        _joined(values),
        row_counts.rows_out - num_missing,
        row_counts,
        _first_problem(path, num_without_id),
    )


def _first_problem(path: Path, num_without_id: int) -> str | None:
    return describe_no_id(first_row_without_id(path)) if num_without_id else None


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """The parts in one array. Each part is freed after copying, which limits the peak memory."""
    whole = np.empty(sum(map(len, parts)), parts[0].dtype)
    stop = len(whole)
    while parts:
        part = parts.pop()
        whole[stop - len(part) : stop] = part
        stop -= len(part)
    return whole


def _kind_of_ids(path: Path) -> np.dtype[Any]:
    """The type of the ids in the file, integers or strings. `iter_rewards` returns strings."""
    import pyarrow as pa

    is_integer = pa.types.is_integer(plain_type(schema_of(path).field("prompt_id").type))
    return np.dtype(np.int64) if is_integer else STRINGS


def _refuse_no_rows(path: Path, num_rows: int, num_without_id: int) -> None:
    if num_rows == 0:
        raise InputError(f"{path}: the file has no rows; it must have at least one")
    if num_rows == num_without_id:
        raise InputError(NO_PROMPT_ID.format(path))
