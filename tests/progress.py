"""Progress under a clock that only the test moves, and the lines that it logs."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tasks.engine.progress_log import ProgressLog
from tests.services.processes import NEVER_SECONDS


@dataclass
class Clock:
    """Seconds, as the test says."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Lines(logging.Handler):
    """Keeps the lines of progress, and lets a test wait for one of them."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, text: str) -> None:
        """Until a line ends with `text`; fails where none does."""

        def is_there() -> bool:
            return any(line.endswith(text) for line in self.lines)

        with self._changed:
            assert self._changed.wait_for(is_there, NEVER_SECONDS), (text, self.lines[-5:])


@dataclass
class Watched:
    """A clock, the lines, and a progress that reports all the time."""

    clock: Clock = field(default_factory=Clock)
    lines: Lines = field(default_factory=Lines)

    def progress(self, name: str = "work") -> ProgressLog:
        return ProgressLog(name, interval_seconds=0.005, clock=self.clock)

    def after(self, seconds: float, line: str) -> Callable[[], None]:
        """What slow work does: time passes, and a line comes up meanwhile."""

        def wait() -> None:
            self.clock.now += seconds
            self.lines.wait_for(line)

        return wait


@contextmanager
def watched() -> Iterator[Watched]:
    """Lines are kept for as long as the body runs."""
    here = Watched()
    logger = logging.getLogger("tasks.engine.progress_log")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(here.lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # thousands of lines would be kept for a report of the test
    try:
        yield here
    finally:
        logger.removeHandler(here.lines)
        logger.setLevel(level)
        logger.propagate = propagate
