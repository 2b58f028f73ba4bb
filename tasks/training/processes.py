"""Training over several processes of this machine, started by torch's or accelerate's launcher.

The processes communicate with this one by files: the plan, a list of events to which the main
process appends, and a reply for each checkpoint once it is in the store. All of them inherit one
end of a pipe as standard input and exit when its other end, held here, is closed, also when this
process is killed with -9. So no process is left behind.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.errors import StageError
from tasks.engine.child_processes import child_environment, end_with_parent, first_cause
from tasks.engine.tables import TrainStep
from tasks.training.training_run import TrainingPlan, Watcher, run_training

POLL_SECONDS = 0.05
LOG_LINES = 30
"""Number of last output lines that are shown when the processes fail."""


class Event(BaseModel):
    """An event of the main process: a step, or a checkpoint to upload."""

    model_config = ConfigDict(frozen=True)

    num_steps: int = 0
    step: TrainStep | None = None
    checkpoint: int | None = None
    folder: Path | None = None


class _Files(NamedTuple):
    """The shared files, below the plan's scratch folder."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def events(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def kept(self, step: int) -> Path:
        return self.folder / f"kept-{step}"


def launch_training(plan: TrainingPlan, watcher: Watcher, launch_file: Path | None) -> None:
    """Train over `plan.num_processes` processes and wait for them.

    `launch_file` is a configuration of accelerate (FSDP, DeepSpeed); None is plain data
    parallelism. Raises StageError, with the end of their output, if one fails.
    """
    files = _Files(plan.scratch)
    files.folder.mkdir(parents=True, exist_ok=True)
    files.plan.write_text(plan.model_dump_json())
    files.events.touch()
    with _launched(plan, files, launch_file) as process, files.events.open() as events:
        while process.poll() is None:
            _hear(events, watcher, files)
            time.sleep(POLL_SECONDS)
        _hear(events, watcher, files)
    if process.returncode != 0:
        output = files.output.read_text(errors="replace")
        end = "\n".join(output.splitlines()[-LOG_LINES:])
        cause = first_cause(output) or "they printed no error"
        raise StageError(
            f"training over {plan.num_processes} processes failed with exit code "
            f"{process.returncode}: {cause}; the last lines of their output:\n{end}"
        )


def launch_command(plan: TrainingPlan, files: Path, launch_file: Path | None) -> list[str]:
    """The launcher and its arguments."""
    worker = ["--module", "tasks.training.worker", str(files)]
    if launch_file is None:
        torch_run = ["torch.distributed.run", "--standalone"]
        return [sys.executable, "-m", *torch_run, f"--nproc-per-node={plan.num_processes}", *worker]
    accelerate = ["accelerate.commands.launch", "--config_file", str(launch_file)]
    return [
        sys.executable, "-m", *accelerate, "--num_processes", str(plan.num_processes), *worker,
    ]  # fmt: skip


@contextmanager
def _launched(
    plan: TrainingPlan, files: _Files, launch_file: Path | None
) -> Iterator[subprocess.Popen[bytes]]:
    with files.output.open("wb") as output:
        process = subprocess.Popen(
            launch_command(plan, files.folder, launch_file),
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()  # ends all of them
            process.wait()


def _hear(events: Iterator[str], watcher: Watcher, files: _Files) -> None:
    for line in events:
        event = Event.model_validate_json(line)
        if event.step is not None:
            watcher.on_step(event.step, event.num_steps)
        if event.checkpoint is not None and event.folder is not None:
            watcher.on_checkpoint(event.checkpoint, event.folder)
            files.kept(event.checkpoint).touch()


class _Teller:
    """A watcher in another process, which appends its events to the file."""

    def __init__(self, files: _Files) -> None:
        self._files = files

    def on_step(self, step: TrainStep, num_steps: int) -> None:
        self._tell(Event(step=step, num_steps=num_steps))

    def on_checkpoint(self, step: int, folder: Path) -> None:
        self._tell(Event(checkpoint=step, folder=folder))
        while not self._files.kept(step).exists():
            time.sleep(POLL_SECONDS)

    def _tell(self, event: Event) -> None:
        with self._files.events.open("a") as file:
            file.write(event.model_dump_json() + "\n")


def work(folder: Path) -> None:
    """Run as one of the processes."""
    end_with_parent()
    files = _Files(folder)
    run_training(TrainingPlan.model_validate_json(files.plan.read_text()), _Teller(files))
