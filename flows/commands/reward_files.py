"""From a file of rewards in long form to the PVar of each prompt."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.commands.columns import is_parquet, read_columns
from infra.columnar import variance_from_file
from infra.row_files import refuse_unreadable
from pvar.accounts import Accounts
from pvar.errors import InputError
from pvar.variance import PairCount, variance_by_prompt


class Variances(NamedTuple):
    """PVar by prompt; arrays of shape (num_prompts,)."""

    prompt_ids: NDArray[Any]
    """Strings or integers, ascending."""
    num_responses: NDArray[np.int32]
    """Responses with a reward."""
    pvar: NDArray[np.float64]
    """NaN for fewer than two."""
    stderr: NDArray[np.float64]
    """NaN for fewer than three."""
    pairs: PairCount
    """Over all prompts."""
    accounts: Accounts
    """In rows of the file."""
    first_problem: str | None
    """What is wrong with the first row that was rejected."""

    @property
    def num_rewards(self) -> int:
        """Rewards that are not missing."""
        return int(self.num_responses.sum())


def read_variances(path: Path, *, scale: float) -> Variances:
    """Compute PVar from the columns prompt_id and reward; Parquet may be larger than memory.

    Raises InputError for a file that cannot be read or lacks a column, ConfigError for a scale
    that is not positive.
    """
    return _from_parquet(path, scale) if is_parquet(path) else _from_lines(path, scale)


def _from_lines(path: Path, scale: float) -> Variances:
    columns = read_columns(path, ("reward",))
    rewards = columns.require("reward")
    result = variance_by_prompt(columns.prompt_index, rewards, scale=scale)
    return Variances(
        columns.prompt_ids,
        result.num_responses,
        result.pvar,
        result.stderr,
        result.pairs,
        columns.accounts,
        columns.first_problem,
    )


def _from_parquet(path: Path, scale: float) -> Variances:
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_unreadable(path)
    table = variance_from_file(path, scale=scale)
    if not table.num_rows:
        raise InputError(f"{path}: there are no rows; it must hold at least one")
    ids = table.prompt_ids
    if pa.types.is_integer(pq.read_schema(path).field("prompt_id").type):
        ids = ids.astype(np.int64)
    order = np.argsort(ids)
    return Variances(
        ids[order],
        table.num_responses[order],
        table.pvar[order],
        table.stderr[order],
        PairCount(table.num_pairs, table.num_saturated),
        Accounts(rows_in=table.num_rows, rows_out=table.num_rows),
        None,
    )
