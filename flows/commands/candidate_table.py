"""Read the candidates of a selection from a user's file with either PVar or rewards."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flows.commands.columns import ALL_LISTS, REWARD, Columns
from flows.commands.parquet_columns import read_columns
from flows.commands.reward_files import is_long_parquet, read_measure
from flows.commands.row_columns import read_row_columns
from infra.columnar import NotUtf8Error
from pvar.errors import ConfigError, InputError
from pvar.row_counts import RowCounts
from pvar.selection import (
    MEASURES,
    STRATEGIES,
    Candidates,
    Measure,
    StrategyName,
    measure_by_prompt,
)
from pvar.selection.strategy import PVAR
from pvar.variance import MAX_PVAR

Floats = npt.NDArray[np.float64]
ROUNDING = 1e-6  # rounding error of a PVar computed in float32
MAX_TOKENS = 2**40
"""Of one prompt, so that sums of them are exact."""
NUMBER_COLUMNS = (REWARD, *MEASURES, "num_tokens")


class CandidateTable(NamedTuple):
    """Candidates, and where they come from."""

    candidates: Candidates
    origin: str
    """Source of the PVar values, as text for the user."""
    row_counts: RowCounts
    """Counts of rows of the file."""
    first_problem: str | None
    """Description of the first rejected row's problem."""


def read_candidates(path: Path, strategy: StrategyName, scale: float | None) -> CandidateTable:
    """Read PVar from the column pvar if the file has it, else compute it from rewards or lists.

    `scale` is the reward scale; None means 1. Raises InputError if the file has neither column, and
    ConfigError if a scale is given for a file with PVar.
    """
    measure = STRATEGIES[strategy].measure
    if is_long_parquet(path, NUMBER_COLUMNS):
        try:
            return _from_long_parquet(path, measure, scale)
        except NotUtf8Error:
            columns = read_row_columns(path, NUMBER_COLUMNS)
    else:
        columns = read_columns(path, NUMBER_COLUMNS)
    if PVAR.name in columns.numbers:
        return _from_measures(columns, scale)
    return _from_rewards(columns, measure, scale)


def _from_long_parquet(path: Path, measure: Measure, scale: float | None) -> CandidateTable:
    tau = 1.0 if scale is None else scale
    measured = read_measure(path, measure, scale=tau)
    return CandidateTable(
        Candidates(measured.prompt_ids, {measure.name: measured.values}),
        _computed(measured.num_rewards, tau),
        measured.row_counts,
        measured.first_problem,
    )


def _computed(num_rewards: int, scale: float) -> str:
    return f"computed from {num_rewards} rewards with scale τ = {scale:g}"


def _from_measures(columns: Columns, scale: float | None) -> CandidateTable:
    """Candidates from one row per prompt with PVar and other measures."""
    if scale is not None:
        raise ConfigError(
            f"{columns.file_name} has a column pvar, so --scale has no effect; omit --scale, or "
            "remove that column to compute PVar from the rewards"
        )
    num_rows = np.bincount(columns.prompt_index)
    if num_rows.max() > 1:
        raise InputError(
            f"{columns.file_name} has a column pvar, so it must hold one row per prompt, but "
            f"prompt {columns.prompt_ids[num_rows.argmax()]} has {num_rows.max()}; remove the "
            "duplicates, or remove that column to compute PVar from the rewards"
        )
    order = np.argsort(columns.prompt_index)
    numbers = {name: values[order] for name, values in columns.numbers.items()}
    pvar = numbers["pvar"]
    wrong = (pvar < 0) | (pvar > MAX_PVAR + ROUNDING)
    if wrong.any():
        raise InputError(
            f"{columns.file_name}: the pvar of prompt {columns.prompt_ids[wrong.argmax()]} is "
            f"{pvar[wrong.argmax()]}, but PVar is between 0 and {MAX_PVAR}"
        )
    candidates = Candidates(
        columns.prompt_ids,
        {name: values for name, values in numbers.items() if name in MEASURES},
        num_tokens=_whole(columns, numbers.get("num_tokens")),
    )
    return CandidateTable(
        candidates, "read from the column pvar", columns.row_counts, columns.first_problem
    )


def _whole(columns: Columns, num_tokens: Floats | None) -> npt.NDArray[np.int64] | None:
    if num_tokens is None:
        return None
    wrong = ~((num_tokens >= 0) & (num_tokens <= MAX_TOKENS))
    wrong |= num_tokens != np.floor(num_tokens)
    if wrong.any():
        raise InputError(
            f"{columns.file_name}: the num_tokens of prompt "
            f"{columns.prompt_ids[wrong.argmax()]} is {num_tokens[wrong.argmax()]}; "
            f"it must be an integer from 0 to {MAX_TOKENS} and must not be missing"
        )
    return num_tokens.astype(np.int64)


def _from_rewards(columns: Columns, measure: Measure, scale: float | None) -> CandidateTable:
    """Candidates whose measure is computed from the rewards."""
    if REWARD not in columns.numbers:
        raise InputError(
            f"{columns.file_name}: there is neither a column pvar (one row per prompt) nor a "
            "column reward (one row per response) nor a list "
            f"{', '.join(ALL_LISTS)} (one row per prompt); add one of them, or rename your column"
        )
    rewards = columns.numbers[REWARD]
    tau = 1.0 if scale is None else scale
    values = measure_by_prompt(columns.prompt_index, rewards, measure, scale=tau)
    return CandidateTable(
        Candidates(columns.prompt_ids, {measure.name: values}),
        _computed(int(np.count_nonzero(np.isfinite(rewards))), tau),
        columns.row_counts,
        columns.first_problem,
    )
