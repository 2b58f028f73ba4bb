"""Columns of rows that are read one by one, such as JSON lines: the rules for all formats.

Every id and number is checked, and unusable rows are counted.

Memory holds only the distinct ids and a few bytes per number; other columns are not kept.
"""

import math
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.commands.columns import (
    ALL_LISTS,
    NO_PROMPT_ID,
    REWARD,
    REWARD_LISTS,
    STRINGS,
    Columns,
    rank_ids,
)
from infra.parquet_rows import has_no_null, parquet_schema
from infra.row_files import PARQUET, STDIN, read_rows, refuse_unreadable
from pvar.answer_rows import as_number, nested_scores, parse_pool_prompt
from pvar.errors import InputError
from pvar.records import BadRow, Row
from pvar.row_counts import RowCounts
from pvar.selection.strategy import PVAR

Fields = Mapping[str, object]
SINGLE = (REWARD, PVAR.name)
"""Columns with one number per row."""
INTEGER_IDS = range(-(2**63), 2**63)


def read_row_columns(path: Path, number_columns: Collection[str]) -> Columns:
    """Read prompt_id and the number columns that occur in any row; lists as rewards, if wanted.

    A number can be null or absent (missing). Raises InputError if the file cannot be read, has no
    column prompt_id or no usable row, or has both string and integer ids.
    """
    codes: dict[str | int, int] = {}
    index = array("q")
    numbers = {name: array("d") for name in number_columns}
    present: set[str] = set()
    rejected: Counter[str] = Counter()
    first_problem: str | None = None
    num_rows = 0
    for row in read_rows(path, needed_columns(path, number_columns)):
        entry = _entry(row, number_columns)
        if isinstance(entry, _Problem):
            rejected[entry.reason] += 1
            first_problem = first_problem or f"row {row.number}: {entry.details}"
            continue
        num_rows += 1
        present |= entry.present
        code = codes.setdefault(entry.prompt_id, len(codes))
        for values in entry.values:
            index.append(code)
            for name, value in zip(number_columns, values, strict=True):
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
        RowCounts(rows_in=num_rows + rejected.total(), rows_out=num_rows, rejected=dict(rejected)),
        first_problem,
    )


def needed_columns(path: Path, number_columns: Collection[str]) -> Collection[str] | None:
    """The columns of a Parquet file that are read; None for all, of which a prompt may be made."""
    if not path.name.endswith(PARQUET):
        return None
    refuse_unreadable(path)
    has_ids = "prompt_id" in parquet_schema(path).names and has_no_null(path, "prompt_id")
    return {"prompt_id", *number_columns, *SINGLE, *ALL_LISTS} if has_ids else None


def usable_id(row: Row | BadRow, number_columns: Collection[str]) -> str | int | None:
    """The prompt id of a row that `read_row_columns` uses; None for one that it leaves out."""
    entry = _entry(row, number_columns)
    return None if isinstance(entry, _Problem) else entry.prompt_id


class _Entry(NamedTuple):
    prompt_id: str | int
    values: Sequence[Sequence[float]]
    """Rows of numbers in the order of the columns: one, or one for each reward of a list."""
    present: Set[str]


class _Problem(NamedTuple):
    reason: str
    details: str


def _entry(row: Row | BadRow, number_columns: Collection[str]) -> _Entry | _Problem:
    """The row's id and numbers, or why the row is rejected."""
    if isinstance(row, BadRow):
        return _Problem("unreadable", row.reason)
    rewards = _rewards(row.fields, number_columns) if REWARD in number_columns else None
    prompt_id = _id_of(row.fields, has_list=rewards is not None)
    if isinstance(prompt_id, _Problem):
        return prompt_id
    if isinstance(rewards, _Problem):
        return rewards
    values = []
    for name in number_columns:
        value = as_number(row.fields.get(name))
        if value is None:
            return _Problem("bad_number", f"{name} is {row.fields[name]!r}, not a number")
        values.append(value)
    present = row.fields.keys() & {*number_columns}
    if REWARD in number_columns and row.fields.keys() & {*ALL_LISTS}:
        present |= {REWARD}
    if rewards is None:
        return _Entry(prompt_id, [values], present)
    at = list(number_columns).index(REWARD)
    rows = [[*values[:at], reward, *values[at + 1 :]] for reward in rewards]
    return _Entry(prompt_id, rows, present)


def _id_of(fields: Fields, *, has_list: bool) -> str | int | _Problem:
    found = fields.get("prompt_id")
    if isinstance(found, str):
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        if found in INTEGER_IDS:
            return found
        return _Problem(
            "bad_prompt_id", f"prompt_id is {found}, an integer of more than 64 bits with a sign"
        )
    if found is not None:
        return _Problem("bad_prompt_id", f"prompt_id is {found!r}, not a string or an integer")
    if not has_list:
        return _Problem("no_prompt_id", "there is no prompt_id")
    prompt = parse_pool_prompt({**fields, "answer": None}, "")  # an id is of the messages
    if isinstance(prompt, str):
        return _Problem("no_prompt_id", f"there is no prompt_id, and no prompt either ({prompt})")
    return prompt.prompt_id


def _rewards(fields: Fields, number_columns: Collection[str]) -> list[float] | _Problem | None:
    """The rewards of the row's list; None if it has none, or a reward or a PVar of its own.

    A PVar that is null is missing, whatever list stands beside it; so is a reward that is null, if
    the list is not one of rewards.
    """
    if PVAR.name in number_columns and PVAR.name in fields:
        return None
    if REWARD in number_columns and fields.get(REWARD) is not None:
        return None
    found = _listed(fields)
    return None if isinstance(found, _Problem) and REWARD in fields else found


def _listed(fields: Fields) -> list[float] | _Problem | None:
    """The rewards of the row's list; None if it has none."""
    name = next((name for name in REWARD_LISTS if fields.get(name) is not None), None)
    if name is not None:
        return _as_rewards(name, fields[name])
    scores = nested_scores(fields)
    if isinstance(scores, str):
        return _Problem("bad_rewards", f"its answers cannot be read ({scores})")
    return [math.nan] if scores == [] else scores


def _as_rewards(name: str, value: object) -> list[float] | _Problem:
    """The rewards of a list, NaN where missing; one that is missing for an empty list."""
    if value == []:
        return [math.nan]
    if not isinstance(value, list):
        return _Problem("bad_rewards", f"{name} is {value!r}, not a list of numbers")
    rewards = []
    for place, element in enumerate(value):
        reward = as_number(element)
        if reward is None:
            return _Problem("bad_rewards", f"{name}[{place}] is {element!r}, not a number")
        rewards.append(reward)
    return rewards


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
    return f"{file_name}: all {rejected.total()} rows are unusable; {first_problem}; correct them"
