"""A training as part of a stage: its steps go to tracking, its checkpoints to the store."""

import logging
import math
from pathlib import Path
from typing import Any

from pvar.errors import StageError
from tasks.engine.stage import Job
from tasks.engine.tables import TrainStep
from tasks.training.checkpoints import save_checkpoint
from tasks.training.processes import launch_training
from tasks.training.training_run import TrainingPlan, run_training

logger = logging.getLogger(__name__)


def checkpoints_of(job: Job[Any]) -> str:
    """Prefix of the artifact's checkpoints in the store."""
    return f"{job.keys.root}/checkpoints"


def train_in_job(plan: TrainingPlan, job: Job[Any], learning_rate_key: str) -> None:
    """Run the training, in this process or in several of this machine, and report it.

    Raises StageError, which names the key of the learning rate, if the loss is not finite.
    """
    watcher = _Report(job, learning_rate_key, plan.settings.learning_rate)
    if plan.num_processes > 1 or job.runtime.sharding is not None:
        sharding = job.runtime.sharding
        launch_training(plan, watcher, sharding and job.ports.launch_file(sharding))
    else:
        run_training(plan, watcher)


class _Report:
    """Sends every step's metrics to tracking and every checkpoint to the store."""

    def __init__(self, job: Job[Any], learning_rate_key: str, learning_rate: float) -> None:
        self._job = job
        self._learning_rate = f"{learning_rate_key} ({learning_rate:g})"
        self._is_first = True

    def on_step(self, step: TrainStep, num_steps: int) -> None:
        root = self._job.keys.root
        if self._is_first:  # only now is their number known, also where training goes on
            self._is_first = False
            self._job.progress.begin(total=num_steps, unit="steps", done=step.step)
        self._job.progress.reach(step.step)
        if not math.isfinite(step.loss):
            why = self._why(step)
            raise StageError(f"{root}: the loss is {step.loss} at step {step.step}: {why}")
        logger.info(
            "%s: step %d of %d: loss %.4f, margin %.3f, %.0f tokens/s",
            root,
            step.step,
            num_steps,
            step.loss,
            step.margin,
            step.tokens_per_second,
        )
        figures = {name: value for name, value in step._asdict().items() if value is not None}
        for name in ("step", "num_tokens", "seconds"):  # the summary has the totals
            figures.pop(name, None)
        self._job.log_step(step.step, figures)

    def _why(self, step: TrainStep) -> str:
        """What to do about a loss that is not finite. The first one is of the starting weights."""
        if step.step > 1:
            return f"training diverged; lower {self._learning_rate}"
        return (
            "nothing was learned yet, so the learning rate is not the cause; check the starting "
            f"model's weights and its number format ({self._job.number_format}): float32 overflows "
            "least"
        )

    def on_checkpoint(self, step: int, folder: Path) -> None:
        job = self._job
        save_checkpoint(job.ports.store, checkpoints_of(job), job.plan, step, folder)
