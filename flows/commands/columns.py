"""From a user's file to its prompt ids and numbers: checked, unusable rows counted.

Only ids that differ and a few bytes per number are held; texts in other columns cost no memory.
Axes: R usable rows of the file, P prompts.
"""

import math
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.row_files import STDIN, BadRow, Row, read_rows, refuse_unreadable
from pvar.accounts import Accounts
from pvar.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_INTEGER_ID = 2**63 - 1
STRINGS = np.dtypes.StringDType()  # as long as each is, where U would make all as the longest


class Columns(NamedTuple):
    """The prompt ids and the numbers of a file."""

    file_name: str
    prompt_ids: NDArray[Any]
    """(P,) different ids, ascending: all strings or all integers."""
    prompt_index: NDArray[np.int64]
    """(R,) number of each row's prompt in prompt_ids."""
    numbers: Mapping[str, NDArray[np.float64]]
    """Name → (R,) values, NaN where there is none. Columns that the file lacks are absent."""
    accounts: Accounts
    """In rows of the file; reasons: unreadable, no_prompt_id, bad_prompt_id, bad_number."""
    first_problem: str | None
    """What is wrong with the first row that was rejected."""

    def require(self, name: str) -> NDArray[np.float64]:
        """The column, or an InputError that names it."""
        if name not in self.numbers:
            raise InputError(
                f"{self.file_name}: there is no column {name}; add it, or rename the one you have"
            )
        return self.numbers[name]


def is_parquet(path: Path) -> bool:
    """Whether the file's name says Parquet."""
    return path.name.endswith(".parquet")


def read_columns(path: Path, number_columns: Collection[str]) -> Columns:
    """Read prompt_id and those of the number columns that the file has.

    A number may be null or left out (missing). Raises InputError for a file that cannot be read,
    one without a column prompt_id or without a usable row, and for ids of both kinds.
    """
    if is_parquet(path):
        return _read_parquet(path, number_columns)
    return _read_lines(path, number_columns)


def _read_lines(path: Path, number_columns: Collection[str]) -> Columns:
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
        Accounts(
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
    """The row's id and numbers, or why it has none."""
    if isinstance(row, BadRow):
        return _Problem("unreadable", row.reason)
    if "prompt_id" not in row.fields:
        return _Problem("no_prompt_id", "there is no prompt_id")
    prompt_id = _as_id(row.fields["prompt_id"])
    if prompt_id is None:
        found = row.fields["prompt_id"]
        return _Problem("bad_prompt_id", f"prompt_id is {found!r}, not a text or an integer")
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
    """NaN for what is missing, None for what is no number."""
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
    """The ids, ascending, and the place of each code in them."""
    text = next((each for each in codes if isinstance(each, str)), None)
    integer = next((each for each in codes if isinstance(each, int)), None)
    if text is not None and integer is not None:
        raise InputError(
            f"{file_name}: some prompt ids are texts (such as {text!r}) and some are integers "
            f"(such as {integer}); ids are joined by equality, so make them all of one kind"
        )
    ids = np.array(list(codes), STRINGS if integer is None else np.int64)
    return _ranked(ids)


def _ranked(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    order = np.argsort(ids)
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    return ids[order], rank


def _no_usable_row(file_name: str, rejected: Counter[str], first_problem: str | None) -> str:
    if set(rejected) == {"no_prompt_id"}:
        return f"{file_name}: there is no column prompt_id; add it, or rename the one you have"
    return f"{file_name}: none of {rejected.total()} rows can be used; {first_problem}"


def _read_parquet(path: Path, number_columns: Collection[str]) -> Columns:
    """The same from Parquet, column by column."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    refuse_unreadable(path)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            present = set(file.schema_arrow.names)
            if "prompt_id" not in present:
                raise InputError(_no_usable_row(str(path), Counter(no_prompt_id=1), None))
            names = [name for name in number_columns if name in present]
            _refuse_types(path, file.schema_arrow, names)
            table = file.read(columns=["prompt_id", *names])
        num_rows = table.num_rows
        table = table.filter(pc.is_valid(table["prompt_id"]))
        codes = table["prompt_id"].combine_chunks().dictionary_encode()
        numbers = {name: table[name].cast(pa.float64(), safe=False).to_numpy() for name in names}
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a sound Parquet file ({error}); copy it again") from error
    without_id = num_rows - table.num_rows
    if not table.num_rows:
        raise InputError(f"{path}: none of {num_rows} rows has a prompt_id")
    is_integer = pa.types.is_integer(codes.dictionary.type)
    kind = np.int64 if is_integer else STRINGS
    prompt_ids, rank = _ranked(np.array(codes.dictionary.to_pylist(), kind))
    return Columns(
        str(path),
        prompt_ids,
        rank[codes.indices.to_numpy()],
        numbers,
        Accounts(
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
        raise InputError(f"{path}: prompt_id is of type {kind}; make it a text or an integer")
    for name in names:
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise InputError(f"{path}: the column {name} is of type {kind}; make it numbers")
