"""Checked access to the columns of a benchmark's files.

Published scores must be reproducible from their files. An invalid line, or a row without a required
column, is therefore an error; no row is skipped.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pvar.errors import ColumnError, InputError
from pvar.records import BadRow, Row


class RowFile(NamedTuple):
    """The rows of a file, and the file's name in messages."""

    name: str
    rows: Iterable[Row | BadRow]


def rows_with(file: RowFile, columns: Sequence[str]) -> Iterator[Row]:
    """The rows. Raises InputError for an invalid line, ColumnError for a row without a column."""
    is_first = True
    for row in file.rows:
        if isinstance(row, BadRow):
            raise InputError(f"{file.name}, line {row.number}: {row.reason}; fix or remove it")
        if missing := [column for column in columns if column not in row.fields]:
            where = file.name if is_first else f"{file.name}, row {row.number}"
            raise ColumnError(
                f"{where}: there is no column {', '.join(missing)}; the columns are "
                f"{', '.join(row.fields)}; give a file that has it"
            )
        is_first = False
        yield row


def text_of(file: RowFile, row: Row, column: str) -> str:
    """The column's text. Raises InputError for any other type."""
    value = row.fields.get(column)
    if not isinstance(value, str):
        raise InputError(
            f"{file.name}, row {row.number}: {column} is {value!r}; it must be a string"
        )
    return value


def optional_text(row: Row, column: str) -> str | None:
    """The column's text; None if it is absent or no text."""
    value = row.fields.get(column)
    return value if isinstance(value, str) else None


def number_of(file: RowFile, row: Row, column: str, *, default: float) -> float:
    """The column's number, or `default` for null. Raises InputError for any other type."""
    value = row.fields[column]
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{file.name}, row {row.number}: {column} is {value!r}; it must be a number"
        )
    return float(value)
