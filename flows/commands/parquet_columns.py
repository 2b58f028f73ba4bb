"""Columns of Parquet files, read without a loop over rows."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.commands.columns import (
    ALL_LISTS,
    NO_PROMPT_ID,
    REWARD,
    REWARD_LISTS,
    STRINGS,
    Columns,
    rank_ids,
)
from infra.row_files import refuse_unreadable
from pvar.errors import InputError
from pvar.row_counts import RowCounts
from pvar.selection.strategy import PVAR

if TYPE_CHECKING:
    import pyarrow as pa


def is_parquet(path: Path) -> bool:
    """Whether the file's name ends with .parquet."""
    return path.name.endswith(".parquet")


def is_read_by_row(path: Path) -> bool:
    """Whether rows must be read one by one (`flows/commands/row_columns.py`).

    So are JSON lines, and Parquet whose rewards or ids are inside of other columns.
    """
    if not is_parquet(path):
        return True
    names = frozenset(_schema(path).names)
    if names & {REWARD, PVAR.name}:
        return False
    if "prompt_id" in names and names & set(REWARD_LISTS):
        return False
    return bool(names & set(ALL_LISTS))


def parquet_schema(path: Path) -> "pa.Schema":
    """The schema of a Parquet file. Raises InputError if it is unreadable or has no prompt_id."""
    schema = _schema(path)
    if "prompt_id" not in schema.names:
        raise InputError(NO_PROMPT_ID.format(path))
    return schema


def _schema(path: Path) -> "pa.Schema":
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_unreadable(path)
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a valid Parquet file ({error}); copy it again") from error


def read_parquet_columns(path: Path, number_columns: Collection[str]) -> Columns:
    """Read prompt_id and the number columns that the file has; lists as rewards, if wanted.

    Null is a missing number. Rows without prompt_id are dropped and counted. Raises InputError if
    the file cannot be read, lacks prompt_id or has a column of the wrong type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = parquet_schema(path)
    names = [name for name in number_columns if name in schema.names]
    lists = list_of_rewards(schema) if REWARD in number_columns else None
    _refuse_types(path, schema, names, lists)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=["prompt_id", *names, *([lists] if lists else [])])
        num_rows = table.num_rows
        table = table.filter(pc.is_valid(table["prompt_id"]))
        num_usable = table.num_rows
        if lists is not None:
            table, names = _one_row_per_reward(table, lists), [*names, REWARD]
        codes = table["prompt_id"].combine_chunks().dictionary_encode()
        numbers = {name: table[name].cast(pa.float64(), safe=False).to_numpy() for name in names}
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a valid Parquet file ({error}); copy it again") from error
    without_id = num_rows - num_usable
    if not num_usable:
        raise InputError(f"{path}: all {num_rows} rows lack a prompt_id")
    is_integer = pa.types.is_integer(codes.dictionary.type)
    kind = np.int64 if is_integer else STRINGS
    prompt_ids, rank = rank_ids(np.array(codes.dictionary.to_pylist(), kind))
    return Columns(
        str(path),
        prompt_ids,
        rank[codes.indices.to_numpy()],
        numbers,
        RowCounts(
            rows_in=num_rows,
            rows_out=num_usable,
            rejected={"no_prompt_id": without_id} if without_id else {},
        ),
        "a row without prompt_id" if without_id else None,
    )


def list_of_rewards(schema: "pa.Schema") -> str | None:
    """The column with lists of rewards, unless the file has single rewards or PVar."""
    if REWARD in schema.names or PVAR.name in schema.names:
        return None
    import pyarrow as pa

    columns = [name for name in REWARD_LISTS if name in schema.names]
    known = [name for name in columns if not pa.types.is_null(schema.field(name).type)]
    return next(iter([*known, *columns]), None)


def _one_row_per_reward(table: "pa.Table", lists: str) -> "pa.Table":
    """The table with a column reward instead of lists; a missing one for an empty list."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[lists].combine_chunks()
    if pa.types.is_fixed_size_list(column.type):  # as datasets' sequences of a fixed length are
        column = column.cast(pa.list_(column.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    num_rewards = np.maximum(lengths, 1)
    rewards = np.full(int(num_rewards.sum()), np.nan)
    elements = pc.list_flatten(column).cast(pa.float64(), safe=False)
    rewards[np.repeat(lengths > 0, num_rewards)] = elements.to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(table.num_rows), num_rewards)
    return table.drop_columns(lists).take(rows).append_column(REWARD, pa.array(rewards))


def _refuse_types(
    path: Path, schema: "pa.Schema", names: Collection[str], lists: str | None
) -> None:
    import pyarrow as pa

    kind = schema.field("prompt_id").type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    ):
        raise InputError(f"{path}: prompt_id has type {kind}; it must be a string or an integer")
    for name in names:
        kind = schema.field(name).type
        if not _is_number(kind):
            raise InputError(f"{path}: the column {name} has type {kind}; it must be numeric")
    if lists is not None:
        kind = schema.field(lists).type
        is_list = (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        )
        if not (is_list and _is_number(kind.value_type)):
            raise InputError(
                f"{path}: the column {lists} has type {kind}; it must be a list of numbers"
            )


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))
