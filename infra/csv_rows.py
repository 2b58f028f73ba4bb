"""Reader of CSV files: comma-separated cells in UTF-8, with the names of the columns first.

Cells are texts, and an empty one is null. Lists and objects, such as conversations, have no form in
CSV. A row with other than one cell for each column is a bad row, as is one that is not UTF-8. A
quote that is never closed would take the rest of the file into one cell, so it is an error.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from infra.file_kinds import HEAD_BYTES, kind_of_bytes
from pvar.errors import InputError
from pvar.records import BadRow, Row

CSV = ".csv"
_MAX_CELL = 2**31 - 1
"""Characters of a cell; the library's default is 131,072, fewer than long answers have."""
_TABLES = ("CSV", "tab-separated")


def read_csv_rows(path: Path) -> Iterator[Row | BadRow]:
    """The rows, with the number of the line where each begins.

    Raises InputError while reading for a file without rows, with unusable names of columns, or with
    a quote that is not closed.
    """
    csv.field_size_limit(_MAX_CELL)
    try:
        with path.open("rb") as file:
            kind = kind_of_bytes(file.read(HEAD_BYTES))
            if kind and not kind.startswith(_TABLES):
                raise InputError(f"{path}: this is {kind}")
            file.seek(0)
            yield from _rows(file, str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _rows(file: Iterator[bytes], name: str) -> Iterator[Row | BadRow]:
    # Bytes that are not UTF-8 become half characters, which cost their row below.
    lines = (line.decode("utf-8", "surrogateescape") for line in file)
    reader = csv.reader(lines, strict=True)
    columns: list[str] | None = None
    num_rows = 0
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise InputError(
                    f'{name}: the quote (") that opens in the row of line {number} is not closed, '
                    "so all that follows is one cell; close it, and write a quote within a cell "
                    "twice"
                ) from error
            if columns is None:
                raise InputError(f"{name}: its first line is not CSV ({error})") from error
            yield BadRow(number, f"not CSV: {error}")
            continue
        if not cells:
            continue
        if columns is None:
            columns = _columns(cells, name)
            continue
        num_rows += 1
        yield _row(number, columns, cells)
    if not num_rows:
        raise InputError(f"{name}: the file has no rows; it must have at least one")


def _columns(cells: list[str], name: str) -> list[str]:
    first = cells[0].removeprefix("\ufeff")
    names = [each.strip() for each in (first, *cells[1:])]
    if not all(map(_is_text, names)):
        raise InputError(f"{name}: its first line is not UTF-8; write it in UTF-8")
    if first.lstrip()[:1] in ("{", "["):
        raise InputError(f"{name}: this is JSON; its name must end with .jsonl")
    for separator, what in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and separator in names[0]:
            raise InputError(f"{name}: its columns are separated by {what}; write it with commas")
    if "" in names or len(set(names)) < len(names):
        raise InputError(
            f"{name}: its first line must have a name for each column, all different, and has "
            f"{', '.join(map(repr, names))[:300]}"
        )
    return names


def _row(number: int, columns: list[str], cells: list[str]) -> Row | BadRow:
    if len(cells) != len(columns):
        return BadRow(number, f"not CSV: {len(cells)} cells for {len(columns)} columns")
    if not all(map(_is_text, cells)):
        return BadRow(number, "not UTF-8")
    return Row(number, {name: cell or None for name, cell in zip(columns, cells, strict=True)})


def _is_text(cell: str) -> bool:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
