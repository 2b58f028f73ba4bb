"""The looks at an exam, counted in the store: comparisons that could have led to a promotion.

    looks/{model}/{exam}/000003.json     the third look: the results that were looked at

The same results are one look, however often the stage runs. A look is put only if it is absent, so
two runs at once get two numbers. A look's number is that of its key and not its position among the
keys that are left, so that a lost object does not make the levels of other looks less strict.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pvar.evaluation.alpha_spending import level_of_look
from pvar.ports import Store


class ExamLook(BaseModel):
    """A look at an exam, and its share of the budget for errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    """Of the looks at this exam, from 1."""
    exam: str
    """Digest of the exam's prompts (`pvar/exam.py`)."""
    budget: float | None
    """`promote.alpha_budget`."""

    @property
    def level(self) -> float | None:
        """Level at which this look tests the win rate; None without a budget."""
        return None if self.budget is None else level_of_look(self.number, self.budget)

    @property
    def sentence(self) -> str:
        """`look 3 at this exam, level 0.0034 of 0.05`."""
        number = f"look {self.number} at this exam"
        return (
            number if self.level is None else f"{number}, level {self.level:.2g} of {self.budget:g}"
        )


class _Looked(BaseModel):
    """What is stored of a look."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    results: str
    """`evaluate/digest`."""


def look_at(store: Store, model_name: str, exam: str, results: str) -> int:
    """Number of the look at these results of a model on an exam. A new look is counted."""
    prefix = f"looks/{model_name}/{exam}/"
    data = _Looked(results=results).model_dump_json(indent=1).encode() + b"\n"
    while True:
        looks = {
            int(Path(info.key).stem): _Looked.model_validate_json(store.read(info.key)).results
            for info in store.list(prefix)
        }
        for number, looked_at in sorted(looks.items()):
            if looked_at == results:
                return number
        following = max(looks, default=0) + 1
        if store.create(f"{prefix}{following:06d}.json", data):
            return following
