"""Columns of Parquet files, read without a loop over rows.

The rules are those of `flows/commands/row_columns.py`. Where they decide row by row (other types of
columns, lists of answers with their scores, texts that are not UTF-8), the rows are read one by
one.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.commands.columns import (
    ALL_LISTS,
    NO_PROMPT_ID,
    REWARD,
    STRINGS,
    Columns,
    describe_no_id,
    rank_ids,
)
from flows.commands.parquet_lists import read_list_columns
from flows.commands.parquet_types import is_id, is_number, plain_type
from flows.commands.row_columns import read_row_columns
from infra.parquet_rows import has_no_null, invalid_parquet, parquet_schema
from infra.row_files import PARQUET, refuse_unreadable
from pvar.errors import InputError
from pvar.row_counts import RowCounts
from pvar.selection.strategy import PVAR

if TYPE_CHECKING:
    import pyarrow as pa


def read_columns(path: Path, number_columns: Collection[str]) -> Columns:
    """Read prompt_id and the number columns of a file; lists as rewards, if wanted.

    Raises InputError as `read_row_columns`.
    """
    if not is_read_by_row(path, number_columns):
        columns = _read_parquet_columns(path, number_columns)
        if columns is not None:
            return columns
    return read_lists_or_rows(path, number_columns)


def read_lists_or_rows(path: Path, number_columns: Collection[str]) -> Columns:
    """Read a file with lists of rewards, or any other file row by row.

    Raises InputError as `read_row_columns`.
    """
    return read_list_columns(path, number_columns) or read_row_columns(path, number_columns)


def is_parquet(path: Path) -> bool:
    """Whether the file's name ends with .parquet."""
    return path.name.endswith(PARQUET)


def is_read_by_row(path: Path, number_columns: Collection[str]) -> bool:
    """Whether rows must be read one by one: all but Parquet with columns of the usual types."""
    if not is_parquet(path):
        return True
    schema = schema_of(path)
    if "prompt_id" not in schema.names or not is_id(schema.field("prompt_id").type):
        return True
    numbers = [name for name in number_columns if name in schema.names]
    if not all(is_number(schema.field(name).type) for name in numbers):
        return True
    if not {*schema.names} & {*ALL_LISTS} or REWARD not in number_columns:
        return False
    if PVAR.name in numbers:  # lists beside it are not read
        return False
    return REWARD not in numbers or not has_no_null(path, REWARD)


def schema_of(path: Path) -> "pa.Schema":
    """The schema of a Parquet file. Raises InputError if it cannot be read."""
    refuse_unreadable(path)
    return parquet_schema(path)


def first_row_without_id(path: Path) -> int | None:
    """Number of the first row of a Parquet file whose prompt_id is null, from 1."""
    import pyarrow.parquet as pq

    num_rows = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["prompt_id"]):
            ids = batch.column("prompt_id")
            if ids.null_count:
                return num_rows + int(ids.is_null().index(True).as_py()) + 1
            num_rows += batch.num_rows
    return None


def _read_parquet_columns(path: Path, number_columns: Collection[str]) -> Columns | None:
    """The columns of a file with the usual types; None if an id is not UTF-8."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = schema_of(path)
    names = [name for name in number_columns if name in schema.names]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=["prompt_id", *names]).select(["prompt_id", *names])
        ids = table["prompt_id"].cast(plain_type(schema.field("prompt_id").type))
        numbers = {name: table[name].cast(pa.float64(), safe=False) for name in names}
    except (pa.ArrowException, OSError) as error:
        raise invalid_parquet(path, error) from error
    try:
        ids.validate(full=True)
    except pa.ArrowInvalid:
        return None
    is_usable = pc.is_valid(ids)
    num_rows, num_usable = len(ids), len(ids) - ids.null_count
    if not num_rows:
        raise InputError(f"{path}: the file has no rows; it must have at least one")
    if not num_usable:
        raise InputError(NO_PROMPT_ID.format(path))
    codes = ids.filter(is_usable).combine_chunks().dictionary_encode()
    kind = np.int64 if pa.types.is_integer(codes.dictionary.type) else STRINGS
    prompt_ids, rank = rank_ids(np.array(codes.dictionary.to_pylist(), kind))
    without_id = num_rows - num_usable
    return Columns(
        str(path),
        prompt_ids,
        rank[codes.indices.to_numpy()],
        {name: values.filter(is_usable).to_numpy() for name, values in numbers.items()},
        row_counts_of(num_rows, without_id),
        describe_no_id(first_row_without_id(path)) if without_id else None,
    )


def row_counts_of(num_rows: int, num_without_id: int) -> RowCounts:
    """Counts of the rows of a Parquet file."""
    rejected = {"no_prompt_id": num_without_id} if num_without_id else {}
    return RowCounts(rows_in=num_rows, rows_out=num_rows - num_without_id, rejected=rejected)
