"""The two tables behind AlpacaEval 2's length control, read from the text of their CSV files.

`instruction_difficulty.csv` has the instruction's number in its first column and a column
`instruction_difficulty`; `df_gamed.csv` has the columns preference (0 to 1), index, std_delta_len
and instruction_difficulty. The public scorer downloads them at run time (data set
tatsu-lab/alpaca_eval); here they are files that the user gives, and the result names them.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from pvar.errors import InputError
from pvar.evaluation.length_control import Calibration

DIFFICULTY_FILE = "instruction_difficulty.csv"
GAMED_FILE = "df_gamed.csv"

_DIFFICULTY = "instruction_difficulty"
_PUBLISHED_ENDS = (("e28d875b", "a18b"), ("97aeec3f", "d674d"))
MAX_NUMBER = 1_000_000
Number = TypeVar("Number", int, float)
_GAMED_COLUMNS = ("preference", "index", "std_delta_len", _DIFFICULTY)


def parse_calibration(difficulty_csv: str | bytes, gamed_csv: str | bytes) -> Calibration:
    """Read both tables. Raises InputError that names the file and the column or line at fault."""
    numbers, difficulties = _difficulties(_text(difficulty_csv, DIFFICULTY_FILE))
    by_number = np.full(max(numbers, default=-1) + 1, math.nan)
    by_number[numbers] = difficulties
    rows = _rows(_text(gamed_csv, GAMED_FILE), GAMED_FILE, _GAMED_COLUMNS)
    gamed = [row for row in rows if row["preference"]]

    def column(name: str) -> list[float]:
        return [_number(row, name, GAMED_FILE, line) for line, row in enumerate(gamed, start=2)]

    return Calibration(
        difficulties=by_number,
        gamed_preferences=np.array(column("preference")),
        gamed_std_delta_lengths=np.array(column("std_delta_len")),
        gamed_indices=np.array(_refuse_numbers(column("index"), GAMED_FILE), dtype=np.int64),
        gamed_difficulties=np.array(column(_DIFFICULTY)),
    )


def _difficulties(text: str) -> tuple[list[int], list[float]]:
    rows = _rows(text, DIFFICULTY_FILE, (_DIFFICULTY,))
    numbers = [
        int(_number(row, next(iter(row)), DIFFICULTY_FILE, line))
        for line, row in enumerate(rows, start=2)
    ]
    _refuse_numbers(numbers, DIFFICULTY_FILE)
    values = [
        _number(row, _DIFFICULTY, DIFFICULTY_FILE, line) for line, row in enumerate(rows, start=2)
    ]
    return numbers, values


def _refuse_numbers(numbers: list[Number], name: str) -> list[Number]:
    """The numbers. Raises InputError for one that no instruction has."""
    for number in numbers:
        if not 0 <= number <= MAX_NUMBER:
            raise InputError(
                f"{name}: an instruction's number is {number:g}; it must be from 0 to {MAX_NUMBER}"
            )
    return numbers


def _text(content: str | bytes, name: str) -> str:
    try:
        return content if isinstance(content, str) else content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 ({error.reason}); download it again") from error


def _rows(text: str, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text))
    found = reader.fieldnames or ()
    if missing := [column for column in columns if column not in found]:
        raise InputError(
            f"{name}: no column {', '.join(missing)}; its columns are {', '.join(found) or 'none'}"
        )
    try:
        rows = list(reader)
    except csv.Error as error:
        raise InputError(f"{name}: not CSV ({error}); download it again") from error
    if not rows:
        raise InputError(f"{name}: there are no rows; it must have one per instruction")
    return rows


def _number(row: Mapping[str, str], column: str, name: str, line: int) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name}, line {line}: {column} is {row[column]!r}, not a number")
    return value


def is_published(difficulty_sha256: str, gamed_sha256: str) -> bool:
    """Whether both tables are the ones that the public scorer downloads.

    Of their digests only the ends are publicly documented.
    """
    digests = zip((difficulty_sha256, gamed_sha256), _PUBLISHED_ENDS, strict=True)
    return all(found.startswith(start) and found.endswith(end) for found, (start, end) in digests)
