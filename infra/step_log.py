"""Send the metrics of every step to MLflow during a run. An outage of MLflow does not stop the run.

Metrics that could not be sent are kept, and sent with a later step or at the end. During an outage,
which MLflow's client takes many seconds to detect, there is a pause before each new attempt.
Metrics that are never sent are still in the stage's artifact (`steps.parquet` of a training).
"""

import logging
import time
from collections.abc import Callable, Mapping

from infra.mlflow_errors import first_line
from infra.tracking import StepFigures, Tracking
from pvar.errors import TrackingError

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 60.0


class StepLog:
    """Steps of one run. Its state is the steps that MLflow does not have yet."""

    def __init__(
        self, tracking: Tracking, run: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tracking = tracking
        self._run = run
        self._clock = clock
        self._waiting: list[StepFigures] = []
        self._failed_at: float | None = None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send a step and all pending ones. A failure is a warning, once per outage."""
        self._waiting.append(StepFigures(step, time.time(), figures))
        if self._failed_at is None or self._clock() - self._failed_at >= PAUSE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send all pending steps. A failure is a warning."""
        try:
            self._tracking.log_steps(self._run, self._waiting)
        except (TrackingError, OSError) as error:
            if self._failed_at is None:
                logger.warning(
                    "MLflow run %s: step %d could not be logged (%s); the work goes on, and its "
                    "figures are sent later",
                    self._run,
                    self._waiting[-1].step,
                    first_line(error),
                )
            self._failed_at = self._clock()
            return
        if self._failed_at is not None:
            logger.info("MLflow run %s: %d steps sent late", self._run, len(self._waiting))
        self._waiting.clear()
        self._failed_at = None
