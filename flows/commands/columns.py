"""The prompt ids and the numbers of a user's file, however it is stored.

Axes: R usable rows of the file, P prompts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.errors import InputError
from pvar.row_counts import RowCounts

STRINGS = np.dtypes.StringDType()  # each as long as it is, where U makes all as long as the longest
NO_PROMPT_ID = "{}: there is no column prompt_id; add it, or rename the one you have"


class Columns(NamedTuple):
    """The prompt ids and the numbers of a file."""

    file_name: str
    prompt_ids: NDArray[Any]
    """(P,) different ids, ascending: all strings or all integers."""
    prompt_index: NDArray[np.int64]
    """(R,) number of each row's prompt in prompt_ids."""
    numbers: Mapping[str, NDArray[np.float64]]
    """Name → (R,) values, NaN where there is none. Columns that the file lacks are absent."""
    row_counts: RowCounts
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


def rank_ids(ids: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids in ascending order, and the place of each in it."""
    order = np.argsort(ids)
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    return ids[order], rank
