"""Reports progress: a log line every 30 seconds, and a bar on a terminal.

    with ProgressLog("sample/ab12…") as progress:
        progress.begin("loading the model")
        progress.begin(total=864, unit="rows", done=432)    # complete before: not counted as speed
        progress.advance(54)

Each record carries the `ProgressLog` itself as its attribute `progress`, so that a terminal's
handler can draw it at any moment (`flows/terminal.py`) instead of printing the line.

Where units are completed in portions (shards, batches), the speed is measured up to the last
portion, and the time left counts down until the next one is due:

    speed = made / (elapsed − waited),  left = (total − done) / speed − waited
    waited = time since the last portion, at most the longest time between two of them
"""

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from tasks.engine.progress_text import Snapshot, to_text

logger = logging.getLogger(__name__)

REPORT_SECONDS = 30.0
"""Time between two log lines."""

STARTED = "started"


class _Phase(NamedTuple):
    """The current activity and its start. Replaced as a whole, because the timer's thread reads."""

    activity: str
    unit: str
    total: int | None
    done: int
    done_before: int
    began_at: float
    last_at: float
    """When the last portion was completed; the start if none was."""
    longest_gap: float = 0.0
    shards_done: int = 0
    num_shards: int = 0


class ProgressLog:
    """Progress of one piece of work, reported for as long as the context lasts."""

    def __init__(
        self,
        name: str,
        activity: str = STARTED,
        *,
        interval_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        parent: "ProgressLog | None" = None,
    ) -> None:
        self.name = name
        self._interval_seconds = REPORT_SECONDS if interval_seconds is None else interval_seconds
        self._clock = clock
        self._parent = parent
        self._is_paused = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.begin(activity)

    def nested(self, name: str) -> "ProgressLog":
        """Progress of a part with its own name, which replaces this one while it lasts."""
        return ProgressLog(
            name, interval_seconds=self._interval_seconds, clock=self._clock, parent=self
        )

    def begin(
        self, activity: str = "", *, total: int | None = None, unit: str = "", done: int = 0
    ) -> None:
        """Begin another activity; `done` of `total` units were complete before."""
        now = self._clock()
        self._phase = _Phase(activity, unit, total, done, done, began_at=now, last_at=now)

    def say(self, activity: str) -> None:
        """Change the text of the activity and keep the counts."""
        self._phase = self._phase._replace(activity=activity)

    def advance(self, num: int = 1) -> None:
        """Add completed units."""
        self.reach(self._phase.done + num)

    def reach(self, done: int) -> None:
        """Set the number of complete units, by any process; it never decreases."""
        phase = self._phase
        if done <= phase.done:
            return
        now = self._clock()
        gap = max(phase.longest_gap, now - phase.last_at)
        self._phase = phase._replace(done=done, last_at=now, longest_gap=gap)

    def count_shards(self, done: int, total: int) -> None:
        """Set how many shards of this activity are complete, by any process."""
        self._phase = self._phase._replace(shards_done=done, num_shards=total)

    def skip(self, num: int = 1) -> None:
        """Add units that were already complete before."""
        phase = self._phase
        self._phase = phase._replace(done=phase.done + num, done_before=phase.done_before + num)

    @property
    def is_over(self) -> bool:
        """Whether the work has ended."""
        return self._over.is_set()

    @property
    def is_shown(self) -> bool:
        """Whether the work continues, and no part of it is shown instead."""
        return not (self.is_over or self._is_paused)

    def snapshot(self) -> Snapshot:
        """The current progress."""
        phase, now = self._phase, self._clock()
        elapsed = now - phase.began_at
        waited = min(now - phase.last_at, phase.longest_gap)
        made, busy = phase.done - phase.done_before, elapsed - waited
        speed = made / busy if made > 0 and busy > 0 else None
        left = None
        if speed is not None and phase.total is not None and phase.total > phase.done:
            left = max((phase.total - phase.done) / speed - waited, 0.0)
        return Snapshot(
            activity=phase.activity,
            unit=phase.unit,
            done=phase.done,
            total=phase.total,
            elapsed_seconds=elapsed,
            per_second=speed,
            left_seconds=left,
            shards_done=phase.shards_done,
            num_shards=phase.num_shards,
        )

    def report(self) -> None:
        """Log the current progress."""
        logger.info("%s: %s", self.name, to_text(self.snapshot()), extra={"progress": self})

    def __enter__(self) -> Self:
        if self._parent is not None:
            self._parent._is_paused = True
        self.report()
        # Prefect finds the run that a record belongs to in the thread's context.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self._report_until_over,), name=f"progress {self.name}", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._parent is not None:
            self._parent._is_paused = False

    def _report_until_over(self) -> None:
        while not self._over.wait(self._interval_seconds):
            if self.is_shown:
                self.report()
