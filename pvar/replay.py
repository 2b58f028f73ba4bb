"""Which rows of earlier batches are trained on again with a new batch.

The choice depends on the prompts' ids, their batches and, if that is asked for, their PVar, and on
nothing else: the same store gives the same rows, and of a smaller count every row is among those of
a larger one.
"""

import math
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from pvar.config_model import ConfigModel
from pvar.digest import digest
from pvar.records import Prompt


class ReplayConfig(ConfigModel):
    """Rows of earlier batches that are trained on again. Without count and share: all of them."""

    count: int | None = Field(default=None, ge=1)
    """Maximum number of rows."""
    share: float | None = Field(default=None, gt=0, le=1)
    """Fraction of the earlier rows, rounded up."""
    order: Literal["random", "newest", "pvar"] = "random"
    """Which come first: by a hash of the prompt's id, those of newer batches, or those with the
    highest PVar in the run of their own batch."""

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if self.count is not None and self.share is not None:
            raise ValueError(
                f"replay has count {self.count} and share {self.share:g}; give one of them, or "
                "none for all rows"
            )
        return self


class EarlierRow(NamedTuple):
    """A row that an earlier batch brought."""

    prompt: Prompt
    batch: int
    pvar: float | None = None
    """In the run of that batch; None if it was not measured."""


def choose_replayed(
    rows: Sequence[EarlierRow], taken: Collection[str], config: ReplayConfig
) -> list[EarlierRow]:
    """The rows to train on again, in the order of the configuration.

    Left out are prompts in `taken` (ids of the new batch's prompts) and ability questions, on which
    nothing is trained. Of several rows of a prompt the one of the newest batch counts, which may
    have a newer label.
    """
    newest: dict[str, EarlierRow] = {}
    for row in rows:
        known = newest.get(row.prompt.prompt_id)
        if known is None or row.batch > known.batch:
            newest[row.prompt.prompt_id] = row
    candidates = [
        row for name, row in newest.items() if name not in taken and not row.prompt.is_question
    ]
    candidates.sort(key=lambda row: digest(["replay", row.prompt.prompt_id]))
    match config.order:  # sorts keep the order of equal rows
        case "newest":
            candidates.sort(key=lambda row: -row.batch)
        case "pvar":
            candidates.sort(key=lambda row: math.inf if row.pvar is None else -row.pvar)
    return candidates[: _amount(len(candidates), config)]


def _amount(num_rows: int, config: ReplayConfig) -> int:
    if config.count is not None:
        return config.count
    return num_rows if config.share is None else math.ceil(config.share * num_rows)
