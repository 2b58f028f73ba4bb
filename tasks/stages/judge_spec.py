"""The settings of stage judge, and what it asks."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pvar.judge_config import JudgeConfig
from pvar.ports import Judge
from pvar.records import Comparison


class JudgeSpec(BaseModel):
    """The settings that determine the judgments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: JudgeConfig
    orders: Literal["both", "seeded"]
    creative_instructions: str | None
    """System prompt for questions of category creative_writing (judge arena_hard)."""
    epoch: int = Field(default=1, ge=1)
    """The judge's epoch (`judge_epoch.py`)."""
    required_coverage: float = Field(exclude=True)
    """Minimum coverage. Below it the stage fails, and keeps its verdicts."""


@dataclass(frozen=True)
class QuestionGroup:
    """Questions that are judged with one wording."""

    judge: Judge
    is_creative: bool
    comparisons: tuple[Comparison, ...]
    """Each has the baseline's answer first and the model's second."""
    draws: tuple[Comparison, ...]
    """Equal answers, which are not asked about."""
