"""Where each stage runs: in the pipeline's process, or as separate flow runs on a work pool."""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from pvar.config_model import ConfigModel, Name

INLINE = "inline"


class Placement(ConfigModel):
    """Where one stage runs."""

    pool: Name = INLINE
    """`inline` runs the stage in the pipeline's process. `process`, `docker` and `kubernetes` run
    a deployment of the stage, which `pvar deploy --pool` makes. Any other name refers to a
    deployment in your own prefect.yaml."""
    workers: int = Field(default=1, ge=1, le=128)
    """Number of concurrent flow runs that share the stage's shards. Each loads its model once."""
    timeout_seconds: float | None = Field(default=None, gt=0)
    """Timeout of the stage, counted from the submission of its flow runs. They are then cancelled.
    `null` sets no timeout."""

    @model_validator(mode="after")
    def _needs_a_pool(self) -> Self:
        if self.pool == INLINE and (self.workers > 1 or self.timeout_seconds is not None):
            raise ValueError(
                f"workers is {self.workers} and timeout_seconds is {self.timeout_seconds}, but "
                f"pool is {INLINE}, which runs the stage in one process without a timeout; set "
                "pool, for example to process"
            )
        return self


class PlacementConfig(ConfigModel):
    """Where the stages run. These settings do not change the stages' results."""

    ingest: Placement = Placement()
    exclude: Placement = Placement()
    sample: Placement = Placement()
    score: Placement = Placement()
    select: Placement = Placement()
    annotate: Placement = Placement()
    pair: Placement = Placement()
    train: Placement = Placement()
    divergence: Placement = Placement()
    evaluate: Placement = Placement()
    likelihood: Placement = Placement()
    harness: Placement = Placement()
    questions: Placement = Placement()
    outputs: Placement = Placement()
    judge: Placement = Placement()
    benchmark: Placement = Placement()
    reward: Placement = Placement()
    adopt: Placement = Placement()
    audit: Placement = Placement()
    promote: Placement = Placement()

    def of(self, stage: str) -> Placement:
        """The placement of the stage with this name."""
        placement: Placement = getattr(self, stage)
        return placement


if TYPE_CHECKING:
    StageName = str
else:  # the choices on the command line; `tasks/graph.py` has the stages
    StageName = Literal[tuple(PlacementConfig.model_fields)]
