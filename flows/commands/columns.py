"""Prompt ids and number columns of a user's file, independent of the file format.

A file of rewards has one row per response with a column reward, or one row per prompt with a list
of rewards, which is read as one row per reward. `null` in a list is a missing reward; a row without
a list, or with an empty one, has one missing reward. Lists of answers with their scores, as
UltraFeedback and Nectar publish them, are lists of rewards, too (`pvar/answer_rows.py`).

A column that is null in a row counts as one that is not there, as Parquet has every column in every
row. Of Parquet, columns that are not needed are not read, and cost no row, whatever they hold, if
no prompt_id is null; of JSON lines, one text that is not UTF-8 costs its row.

The id of a row with a list and without a prompt_id is that which its prompt has in the
pipeline: a hash of its messages.

Axes: R usable rows of the file (with lists: their elements), P prompts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.answer_rows import NESTED
from pvar.errors import InputError
from pvar.row_counts import RowCounts

STRINGS = np.dtypes.StringDType()  # variable width; dtype U pads all to the longest
REWARD = "reward"
REWARD_LISTS = ("rewards", "scores", "all_rm_scores")
"""Columns with the rewards of a prompt's responses as a list. The first that a row has is read,
unless it has a reward or a PVar."""
ALL_LISTS = (*REWARD_LISTS, *NESTED)
NO_PROMPT_ID = (
    "{}: there is no column prompt_id, or it is null in every row; add it, or rename your column "
    "to prompt_id"
)


class Columns(NamedTuple):
    """The prompt ids and number columns of a file."""

    file_name: str
    prompt_ids: NDArray[Any]
    """(P,) distinct ids, ascending: all strings or all integers."""
    prompt_index: NDArray[np.int64]
    """(R,) index of each row's prompt in prompt_ids."""
    numbers: Mapping[str, NDArray[np.float64]]
    """Name → (R,) values, NaN if missing. Columns that the file lacks are absent."""
    row_counts: RowCounts
    """Counts of rows of the file. Reasons: unreadable, no_prompt_id, bad_prompt_id, bad_number,
    bad_rewards."""
    first_problem: str | None
    """Description of the first rejected row's problem."""

    def require_rewards(self) -> NDArray[np.float64]:
        """(R,) rewards. Raises InputError if the file has none."""
        if REWARD not in self.numbers:
            raise InputError(
                f"{self.file_name}: there is no column {REWARD} (one row per response) and no list "
                f"{', '.join(ALL_LISTS)} (one row per prompt); add one, or rename your column"
            )
        return self.numbers[REWARD]


def describe_no_id(row_number: int | None) -> str:
    """The problem of a row without an id and without a list of rewards."""
    return f"row {row_number}: there is no prompt_id"


def rank_ids(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids in ascending order, and the rank of each id."""
    order = np.argsort(ids)
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    return ids[order], rank
