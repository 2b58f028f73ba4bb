"""What strategies choose from, how much they may take, and what they took.

Axes: every array has shape (num_prompts,), one entry per prompt, in any order. NaN is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pvar.accounts import Accounts
from pvar.errors import InputError

MatchedStrategyName = Literal[
    "top",
    "bottom",
    "stratified",
    "reward_gap",
    "reward_variance",
    "implicit_gap_small",
    "implicit_gap_large",
    "disagreement",
]
"""Strategies that keep as many prompts as the budget says, so that random ones can match them."""
StrategyName = Literal[MatchedStrategyName, "random", "all", "threshold"]
Measure = Literal["pvar", "reward_gap", "reward_variance", "implicit_gap", "disagreement"]
FloatArray = NDArray[np.floating[Any]]
IdArray = NDArray[Any]
"""Prompt ids: strings or integers, all of one kind."""
IDS_PER_PIECE = 1 << 20


class Budget(BaseModel):
    """How much to select: exactly one of fraction, count and tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    fraction: float | None = Field(default=None, gt=0, le=1)
    """Share of all candidate prompts, rounded to the nearest whole prompt, at least one."""
    count: int | None = Field(default=None, ge=1)
    """Number of prompts."""
    tokens: int | None = Field(default=None, ge=1)
    """Sum of num_tokens over the selected prompts; the first one beyond it ends the selection."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(
                f"a budget is exactly one of fraction, count and tokens; given: {given or 'none'}"
            )
        return self


@dataclass(frozen=True, eq=False)
class Candidates:
    """One row per prompt: its id and the measures to choose by.

    Raises InputError where lengths differ or an id occurs twice.
    """

    prompt_ids: IdArray
    pvar: FloatArray
    """Preference variance, in [0, ¼]."""
    reward_gap: FloatArray | None = None
    """Largest minus smallest reward of the prompt's responses, in rewards."""
    reward_variance: FloatArray | None = None
    """Variance of the rewards of the prompt's responses, in squared rewards."""
    implicit_gap: FloatArray | None = None
    """Implicit reward of chosen minus rejected under the policy, β·Δlog(π_θ/π_ref)."""
    disagreement: FloatArray | None = None
    """Between reward models, in [0, ¼] (`pvar.combine.disagreement`)."""
    num_tokens: NDArray[np.integer[Any]] | None = None
    """Training tokens that the prompt costs."""
    source: NDArray[Any] | None = None
    """Name of the data set that the prompt came from."""

    def __post_init__(self) -> None:
        num_prompts = len(self.prompt_ids)
        for field in fields(self):
            values = getattr(self, field.name)
            if values is not None and values.shape != (num_prompts,):
                raise InputError(
                    f"candidates: {field.name} has shape {values.shape}, prompt_ids has "
                    f"({num_prompts},); give one value per prompt"
                )
        repeated = _first_repeated(self.prompt_ids)
        if repeated is not None:
            raise InputError(
                f"candidates: the prompt id {repeated} comes more than once; "
                "give one row per prompt"
            )

    def __len__(self) -> int:
        return len(self.prompt_ids)


def _first_repeated(prompt_ids: IdArray) -> str | None:
    """An id that comes twice. Large tables bring tens of millions: none is copied but in pieces."""
    if np.all(prompt_ids[1:] > prompt_ids[:-1]):
        return None
    order = np.argsort(prompt_ids)
    for start in range(0, len(order), IDS_PER_PIECE):
        ascending = prompt_ids[order[start : start + IDS_PER_PIECE + 1]]
        repeated = ascending[1:][ascending[1:] == ascending[:-1]].tolist()
        if repeated:
            return str(repeated[0])
    return None


class StrategySettings(NamedTuple):
    """What some strategies need beside the candidates."""

    seed: int
    threshold: float | None = None
    """Least PVar, for the strategy `threshold`."""


class Ranking(NamedTuple):
    """A strategy's opinion of every candidate."""

    measure: Measure
    """What it looked at; prompts without this measure are counted."""
    priority: FloatArray
    """Higher is taken first; NaN is never taken."""
    has_cut: bool
    """Whether the measure decides alone, so that a cut value and ties at it mean something."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The prompts that a strategy took, best first, and what happened to the others."""

    strategy: StrategyName
    budget: Budget
    quota_per_source: Mapping[str, int] | None
    prompt_ids: IdArray
    """Shape (num_selected,), in the strategy's order; equals in the order of their ids."""
    measure: Measure
    """Name of the measure."""
    values: FloatArray
    """The measure of each selected prompt, shape (num_selected,)."""
    cut_value: float | None
    """The measure of the last prompt taken; None where the measure does not decide alone."""
    num_tied_selected: int
    """Selected prompts whose measure equals the cut."""
    num_tied_left_out: int
    """Prompts with the same measure that only their id kept out. Many of them: the measure is
    saturated or too coarse, and the selection is partly by id."""
    num_without_measure: int
    """Candidates without the measure."""
    accounts: Accounts
    """Candidates in, selected out, and why the others were left."""

    def __len__(self) -> int:
        return len(self.prompt_ids)
