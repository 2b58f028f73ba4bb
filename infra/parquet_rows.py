"""Rows of Parquet files as those of JSON lines: the same values for the same data.

Names of columns are unique, as the keys of an object are. A decimal number is a number, and dates
and times are texts (ISO 8601).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pvar.errors import InputError
from pvar.records import BadRow, Row

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_BATCH = 8192


def read_parquet_rows(path: Path, columns: Collection[str] | None) -> Iterator[Row | BadRow]:
    """Iterate over the rows of a file with these columns, or all of them for None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [name for name in parquet_schema(path).names if columns is None or name in columns]
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows == 0:
                raise InputError(f"{path}: the file has no rows; it must have at least one")
            number = 0
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=names):
                yield from table_rows(batch.select(names), number)
                number += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise invalid_parquet(path, error) from error


def table_rows(batch: "pa.RecordBatch", offset: int = 0) -> Iterator[Row | BadRow]:
    """The rows of a part of a table that begins after `offset` rows.

    One with a text that is not UTF-8, or a value that Python does not have (a date of the year
    10000), is bad, not the others.
    """
    import pyarrow as pa

    try:
        rows = batch.to_pylist()
    except (
        ValueError,
        OverflowError,
        KeyError,  # of a time zone that this machine does not know
        pa.ArrowException,
    ) as error:  # about values
        if batch.num_rows == 1:
            yield BadRow(offset + 1, _why_unreadable(error))
            return
        half = batch.num_rows // 2
        yield from table_rows(batch.slice(0, half), offset)
        yield from table_rows(batch.slice(half), offset + half)
        return
    kinds = list(_types_in(batch.schema.types))
    if any(pa.types.is_decimal(kind) or pa.types.is_temporal(kind) for kind in kinds):
        rows = [{name: _as_json(value) for name, value in row.items()} for row in rows]
    for number, fields in enumerate(rows, start=offset + 1):
        yield Row(number, fields)


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason}"
    return f"cannot be read: {' '.join(str(error).split())}"


def _as_json(value: object) -> object:
    """The value as JSON has it: decimals as numbers, dates and times as texts."""
    match value:
        case Decimal():
            is_whole = value.as_tuple().exponent == 0
            return int(value) if is_whole else float(value)
        case date() | time():
            return value.isoformat()
        case dict():
            return {name: _as_json(item) for name, item in value.items()}
        case list():
            return [_as_json(item) for item in value]
    return value


def parquet_schema(path: Path) -> "pa.Schema":
    """The schema of a Parquet file. Raises InputError if it is invalid, or has a name twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last is of a name
        raise invalid_parquet(path, error) from error
    for names in [schema.names, *map(_names_in, _types_in(schema.types))]:
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise InputError(f"{path}: {twice[0]!r} is the name of two columns; rename one of them")
    return schema


def has_no_null(path: Path, name: str) -> bool:
    """Whether the file's statistics say that a column has no nulls."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        if name not in paths:  # of a nested column
            return False
        place = paths.index(name)
        groups = range(metadata.num_row_groups)
        found = [metadata.row_group(group).column(place).statistics for group in groups]
    return all(each is not None and each.null_count == 0 for each in found)


def invalid_parquet(path: Path, error: Exception) -> InputError:
    """The error for a Parquet file that cannot be read."""
    said = " ".join(str(error).split())
    return InputError(f"{path}: not a valid Parquet file ({said}); copy it again")


def _types_in(types: Iterable["pa.DataType"]) -> Iterator["pa.DataType"]:
    """These types, and those inside of them."""
    import pyarrow as pa

    for kind in types:
        yield kind
        if pa.types.is_dictionary(kind):
            yield from _types_in([kind.value_type])
        else:
            yield from _types_in(kind.field(place).type for place in range(kind.num_fields))


def _names_in(kind: "pa.DataType") -> list[str]:
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return []
    return [kind.field(place).name for place in range(kind.num_fields)]
