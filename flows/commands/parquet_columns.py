"""Columns of Parquet files, read without a loop over rows."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.commands.columns import NO_PROMPT_ID, STRINGS, Columns, rank_ids
from infra.row_files import refuse_unreadable
from pvar.errors import InputError
from pvar.row_counts import RowCounts

if TYPE_CHECKING:
    import pyarrow as pa


def is_parquet(path: Path) -> bool:
    """Whether the file's name ends with .parquet."""
    return path.name.endswith(".parquet")


def parquet_schema(path: Path) -> "pa.Schema":
    """The schema of a Parquet file. Raises InputError if it is unreadable or has no prompt_id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_unreadable(path)
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a valid Parquet file ({error}); copy it again") from error
    if "prompt_id" not in schema.names:
        raise InputError(NO_PROMPT_ID.format(path))
    return schema


def read_parquet_columns(path: Path, number_columns: Collection[str]) -> Columns:
    """Read prompt_id and the number columns that the file has.

    Null is a missing number. Rows without prompt_id are dropped and counted. Raises InputError if
    the file cannot be read, lacks prompt_id or has a column of the wrong type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = parquet_schema(path)
    names = [name for name in number_columns if name in schema.names]
    _refuse_types(path, schema, names)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns=["prompt_id", *names])
        num_rows = table.num_rows
        table = table.filter(pc.is_valid(table["prompt_id"]))
        codes = table["prompt_id"].combine_chunks().dictionary_encode()
        numbers = {name: table[name].cast(pa.float64(), safe=False).to_numpy() for name in names}
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a valid Parquet file ({error}); copy it again") from error
    without_id = num_rows - table.num_rows
    if not table.num_rows:
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
            rows_out=table.num_rows,
            rejected={"no_prompt_id": without_id} if without_id else {},
        ),
        "a row without prompt_id" if without_id else None,
    )


def _refuse_types(path: Path, schema: "pa.Schema", names: Collection[str]) -> None:
    import pyarrow as pa

    kind = schema.field("prompt_id").type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    ):
        raise InputError(f"{path}: prompt_id has type {kind}; it must be a string or an integer")
    for name in names:
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise InputError(f"{path}: the column {name} has type {kind}; it must be numeric")
