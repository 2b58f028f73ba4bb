"""Progress artifacts of Prefect's runs: how far a stage is, and which stage of a pipeline runs.

A stage reports its progress every 30 seconds (`tasks/engine/progress_log.py`); a shorter one has no
artifact. The artifact's description has the counts, the speed and the time left. If Prefect cannot
be told, that is a warning, and the work goes on.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.engine import progress_log
from tasks.engine.progress_log import ProgressLog
from tasks.engine.progress_text import to_text

logger = logging.getLogger(__name__)


class ProgressBar:
    """A progress artifact of the current run, which is created when it is first shown."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None

    def show(self, done: int, total: int, text: str) -> None:
        """Show `done` of `total`, and the text."""
        try:
            self._show(100 * done / total, text)
        except Exception as error:  # noqa: BLE001  whatever Prefect raises: the run goes on
            logger.warning("Prefect does not show %r: %s", text, error)

    def _show(self, percent: float, text: str) -> None:
        if self._artifact is None:
            created = create_progress_artifact(progress=percent, description=text)
            assert isinstance(created, UUID)  # a coroutine in asynchronous code only
            self._artifact = created
        else:
            update_progress_artifact(self._artifact, progress=percent, description=text)


class _ToArtifact(logging.Handler):
    """Shows the reports of a `ProgressLog` that counts. The first, at its start, has no counts."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._bar = ProgressBar()

    def emit(self, record: logging.LogRecord) -> None:
        progress = getattr(record, "progress", None)
        if not isinstance(progress, ProgressLog):
            return
        now = progress.snapshot()
        if not now.total or now.per_second is None:
            return
        self._bar.show(now.done, now.total, f"{progress.name}: {to_text(now)}")


@contextmanager
def progress_shown() -> Iterator[None]:
    """In the body, the current run has a progress artifact once it reports counts."""
    reports, handler = logging.getLogger(progress_log.__name__), _ToArtifact()
    reports.addHandler(handler)
    try:
        yield
    finally:
        reports.removeHandler(handler)
