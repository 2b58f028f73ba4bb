"""Row accounting: rows in = rows out + rejected, by reason, at every stage.

Row counts can be added: a stage sums the row counts of its shards, files or runs, and the invariant
holds for the sum. Every row that is missing at the end has a recorded reason.
"""

from collections import Counter
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

Reason = Annotated[str, Field(min_length=1)]


class RowCounts(BaseModel):
    """Row counts of a stage or of a part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_in: NonNegativeInt = 0
    """Input rows."""
    rows_out: NonNegativeInt = 0
    """Output rows."""
    rejected: dict[Reason, PositiveInt] = Field(default_factory=dict)
    """Rejected rows, by the name of the rule. Rules that rejected no row are absent."""

    @model_validator(mode="after")
    def _rows_add_up(self) -> Self:
        num_rejected = sum(self.rejected.values())
        if self.rows_in != self.rows_out + num_rejected:
            raise ValueError(
                f"rows do not add up: {self.rows_in} in, but {self.rows_out} out and "
                f"{num_rejected} rejected ({self.rejected}) make {self.rows_out + num_rejected}"
            )
        return self

    def __add__(self, other: "RowCounts") -> "RowCounts":
        """The sum of both row counts."""
        return RowCounts(
            rows_in=self.rows_in + other.rows_in,
            rows_out=self.rows_out + other.rows_out,
            rejected=dict(sorted((Counter(self.rejected) + Counter(other.rejected)).items())),
        )
