"""Where each stage runs: in the pipeline's own process, or as runs of its own on a work pool."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from pvar.config_model import ConfigModel, Name

INLINE = "inline"


class Placement(ConfigModel):
    """Where one stage runs."""

    pool: Name = INLINE
    """`inline` is the pipeline's own process; `process`, `docker` and `kubernetes` are deployments
    of the stage (made by `pvar deploy --pool`), as is any other name in your own prefect.yaml."""
    workers: int = Field(default=1, ge=1, le=128)
    """Runs at once that share the stage's shards; each loads its model once."""
    timeout_seconds: float | None = Field(default=None, gt=0)
    """Longest time for the stage, from when it is handed over; then its runs are cancelled."""

    @model_validator(mode="after")
    def _needs_a_pool(self) -> Self:
        if self.pool == INLINE and (self.workers > 1 or self.timeout_seconds is not None):
            raise ValueError(
                f"workers is {self.workers} and timeout_seconds is {self.timeout_seconds}, but the "
                "stage runs inline, in one process; set pool, for example to process"
            )
        return self


class PlacementConfig(ConfigModel):
    """Where the stages run. Nothing here changes what they make."""

    ingest: Placement = Placement()
    sample: Placement = Placement()
    score: Placement = Placement()
    select: Placement = Placement()
    pair: Placement = Placement()
    train: Placement = Placement()
    evaluate: Placement = Placement()
    promote: Placement = Placement()

    def of(self, stage: str) -> Placement:
        """Where the stage of that name runs."""
        placement: Placement = getattr(self, stage)
        return placement


if TYPE_CHECKING:
    StageName = str
else:  # what the command line offers; `tasks/graph.py` has the stages
    StageName = Literal[tuple(PlacementConfig.model_fields)]
