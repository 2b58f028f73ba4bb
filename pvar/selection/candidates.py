"""Candidate prompts of a selection strategy, and its budget.

Axes: every array has shape (num_prompts,), one entry per prompt, in any order. NaN is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pvar.errors import InputError
from pvar.selection.strategy import FloatArray, IdArray, Measure

IDS_PER_PIECE = 1 << 20


class Budget(BaseModel):
    """How much to select: exactly one of fraction, count and tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    fraction: float | None = Field(default=None, gt=0, le=1)
    """Fraction of all candidate prompts, rounded to the nearest integer, at least one prompt."""
    count: int | None = Field(default=None, ge=1)
    """Number of prompts."""
    tokens: int | None = Field(default=None, ge=1)
    """Maximum sum of num_tokens over the selected prompts. Selection stops at the first prompt
    that would exceed it."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(
                f"budget needs exactly one of fraction, count and tokens; given: {given or 'none'}"
            )
        return self


@dataclass(frozen=True, eq=False)
class Candidates:
    """One row per prompt: its id and its measures.

    Raises InputError if lengths differ or an id occurs twice.
    """

    prompt_ids: IdArray
    measures: Mapping[str, FloatArray]
    """Name of a measure (`pvar.selection.MEASURES`) → its values."""
    num_tokens: NDArray[np.integer[Any]] | None = None
    """Number of training tokens per prompt."""

    def __post_init__(self) -> None:
        num_prompts = len(self.prompt_ids)
        columns: dict[str, NDArray[Any]] = {**self.measures}
        if self.num_tokens is not None:
            columns["num_tokens"] = self.num_tokens
        for name, values in columns.items():
            if values.shape != (num_prompts,):
                raise InputError(
                    f"candidates: {name} has shape {values.shape}, prompt_ids has "
                    f"({num_prompts},); give one value per prompt"
                )
        repeated = _first_repeated(self.prompt_ids)
        if repeated is not None:
            raise InputError(f"candidates: duplicate prompt id {repeated}; give one row per prompt")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def values(self, measure: Measure) -> FloatArray:
        """Values of the measure; NaN is missing. Infinite values become NaN.

        Raises InputError if these candidates do not have the measure.
        """
        if measure.name not in self.measures:
            raise InputError(
                f"the strategy needs the measure {measure.name}, but these candidates have only "
                f"{', '.join(self.measures)}; add it, or use a strategy that selects by PVar (top)"
            )
        values = self.measures[measure.name]
        return np.where(np.isfinite(values), values, np.nan)


def _first_repeated(prompt_ids: IdArray) -> str | None:
    """An id that occurs twice. Tables have up to tens of millions of ids, so copy in pieces."""
    if np.all(prompt_ids[1:] > prompt_ids[:-1]):
        return None
    order = np.argsort(prompt_ids)
    for start in range(0, len(order), IDS_PER_PIECE):
        ascending = prompt_ids[order[start : start + IDS_PER_PIECE + 1]]
        repeated = ascending[1:][ascending[1:] == ascending[:-1]].tolist()
        if repeated:
            return str(repeated[0])
    return None
