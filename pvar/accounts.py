"""Row accounting: rows in = rows out + rejected, by reason, at every stage.

Accounts of shards, files or runs add up, so a stage sums what its parts report and the invariant
still holds for the whole: what is missing at the end has a reason somewhere.
"""

from collections import Counter
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

Reason = Annotated[str, Field(min_length=1)]


class Accounts(BaseModel):
    """What became of the rows of a stage or of a part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_in: NonNegativeInt = 0
    """Rows that came in."""
    rows_out: NonNegativeInt = 0
    """Rows that went on."""
    rejected: dict[Reason, PositiveInt] = Field(default_factory=dict)
    """Rows that were turned away, by the name of the rule; a rule that met no row is absent."""

    @model_validator(mode="after")
    def _rows_add_up(self) -> Self:
        num_rejected = sum(self.rejected.values())
        if self.rows_in != self.rows_out + num_rejected:
            raise ValueError(
                f"rows do not add up: {self.rows_in} in, but {self.rows_out} out and "
                f"{num_rejected} rejected ({self.rejected}) make {self.rows_out + num_rejected}"
            )
        return self

    def __add__(self, other: "Accounts") -> "Accounts":
        """The accounts of both parts together."""
        return Accounts(
            rows_in=self.rows_in + other.rows_in,
            rows_out=self.rows_out + other.rows_out,
            rejected=dict(sorted((Counter(self.rejected) + Counter(other.rejected)).items())),
        )
