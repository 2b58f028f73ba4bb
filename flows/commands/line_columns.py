"""Columns of JSON lines. Every id and number is checked, and unusable rows are counted.

Memory holds only the distinct ids and a few bytes per number; other columns are not kept.
"""

import math
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.commands.columns import NO_PROMPT_ID, STRINGS, Columns, rank_ids
from infra.row_files import STDIN, read_rows
from pvar.errors import InputError
from pvar.records import BadRow, Row
from pvar.row_counts import RowCounts

MAX_INTEGER_ID = 2**63 - 1


def read_line_columns(path: Path, number_columns: Collection[str]) -> Columns:
    """Read prompt_id and the number columns that occur in any row.

    A number can be null or absent (missing). Raises InputError if the file cannot be read, has no
    column prompt_id or no usable row, or has both string and integer ids.
    """
    codes: dict[str | int, int] = {}
    index = array("q")
    numbers = {name: array("d") for name in number_columns}
    present: set[str] = set()
    rejected: Counter[str] = Counter()
    first_problem: str | None = None
    for row in read_rows(path):
        entry = _entry(row, number_columns)
        if isinstance(entry, _Problem):
            rejected[entry.reason] += 1
            first_problem = first_problem or f"row {row.number}: {entry.details}"
            continue
        index.append(codes.setdefault(entry.prompt_id, len(codes)))
        present |= entry.present
        for name, value in zip(number_columns, entry.values, strict=True):
            numbers[name].append(value)

    name = "standard input" if path == STDIN else str(path)
    if not index:
        raise InputError(_no_usable_row(name, rejected, first_problem))
    prompt_ids, rank = _sorted_ids(name, codes)
    return Columns(
        name,
        prompt_ids,
        rank[np.frombuffer(index, np.int64)],
        {name: np.frombuffer(numbers[name]) for name in number_columns if name in present},
        RowCounts(
            rows_in=len(index) + rejected.total(), rows_out=len(index), rejected=dict(rejected)
        ),
        first_problem,
    )


class _Entry(NamedTuple):
    prompt_id: str | int
    values: tuple[float, ...]
    present: Set[str]


class _Problem(NamedTuple):
    reason: str
    details: str


def _entry(row: Row | BadRow, number_columns: Collection[str]) -> _Entry | _Problem:
    """The row's id and numbers, or why the row is rejected."""
    if isinstance(row, BadRow):
        return _Problem("unreadable", row.reason)
    if "prompt_id" not in row.fields:
        return _Problem("no_prompt_id", "there is no prompt_id")
    prompt_id = _as_id(row.fields["prompt_id"])
    if prompt_id is None:
        found = row.fields["prompt_id"]
        return _Problem("bad_prompt_id", f"prompt_id is {found!r}, not a string or an integer")
    values = []
    for name in number_columns:
        value = _as_number(row.fields.get(name))
        if value is None:
            return _Problem("bad_number", f"{name} is {row.fields[name]!r}, not a number")
        values.append(value)
    return _Entry(prompt_id, tuple(values), row.fields.keys() & set(number_columns))


def _as_id(value: object) -> str | int | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER_ID:
        return value
    return None


def _as_number(value: object) -> float | None:
    """The number, NaN if it is missing, None if it is not a number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _sorted_ids(
    file_name: str, codes: Mapping[str | int, int]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids in ascending order, and the rank of each code's id."""
    text = next((each for each in codes if isinstance(each, str)), None)
    integer = next((each for each in codes if isinstance(each, int)), None)
    if text is not None and integer is not None:
        raise InputError(
            f"{file_name}: some prompt ids are strings (such as {text!r}) and some are integers "
            f"(such as {integer}); they would never match, so use one type for all ids"
        )
    ids = np.array(list(codes), STRINGS if integer is None else np.int64)
    return rank_ids(ids)


def _no_usable_row(file_name: str, rejected: Counter[str], first_problem: str | None) -> str:
    if set(rejected) == {"no_prompt_id"}:
        return NO_PROMPT_ID.format(file_name)
    return f"{file_name}: all {rejected.total()} rows are unusable; {first_problem}"
