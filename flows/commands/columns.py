"""Prompt ids and number columns of a user's file, independent of the file format.

Axes: R usable rows of the file, P prompts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.errors import InputError
from pvar.row_counts import RowCounts

STRINGS = np.dtypes.StringDType()  # variable width; dtype U pads all to the longest
NO_PROMPT_ID = "{}: there is no column prompt_id; add it, or rename your column to prompt_id"


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
    """Counts of rows of the file. Reasons: unreadable, no_prompt_id, bad_prompt_id, bad_number."""
    first_problem: str | None
    """Description of the first rejected row's problem."""

    def require(self, name: str) -> NDArray[np.float64]:
        """The values of a column. Raises InputError if the file lacks it."""
        if name not in self.numbers:
            raise InputError(
                f"{self.file_name}: there is no column {name}; add it, or rename your column to "
                f"{name}"
            )
        return self.numbers[name]


def rank_ids(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids in ascending order, and the rank of each id."""
    order = np.argsort(ids)
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    return ids[order], rank
