"""Progress bars at the bottom of a terminal, with counts, speed and remaining time.

    stage 2 of 9: sample
    sample  ━━━━━━━━━━   54 of 108 prompts (50 %, 3 of 6 shards), 1.4 prompts/s, about 38 s left

The log records of `tasks/engine/progress_log.py` contain the progress object. It is redrawn several
times a second until it is over, and its log lines are not printed.
"""

import logging
from typing import TYPE_CHECKING

from flows.announcement import heading_in
from tasks.engine.progress_log import ProgressLog
from tasks.engine.progress_text import to_text

if TYPE_CHECKING:
    from rich.console import RenderableType

BAR_WIDTH = 20


def progress_in(record: logging.LogRecord) -> ProgressLog | None:
    """The progress that a record reports; None for any other record."""
    progress = getattr(record, "progress", None)
    return progress if isinstance(progress, ProgressLog) else None


class Bars(logging.Handler):
    """Collects running progress from log records and draws it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._running: tuple[ProgressLog, ...] = ()
        self._heading: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Add a bar for a new progress object. An announced stage is the heading of its bars."""
        self._heading = heading_in(record) or self._heading
        progress = progress_in(record)
        if progress is not None and progress not in self._running:
            self._running = (*(each for each in self._running if not each.is_over), progress)

    def draw(self) -> "RenderableType":
        """One line per running progress, below the stage that was announced. Called from the thread
        that refreshes the terminal."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table, heading = Table.grid(padding=(0, 2)), ""
        for progress in self._running:
            if progress.is_shown:
                now = progress.snapshot()
                name, slash, _ = progress.name.partition("/")  # of an artifact, `stage/digest`
                if slash and self._heading is not None:
                    heading = self._heading
                bar = ProgressBar(total=now.total, completed=now.done, width=BAR_WIDTH)
                table.add_row(name if heading else progress.name, bar, to_text(now))
        return Group(Text(heading), table) if heading else table


def is_line(record: logging.LogRecord) -> bool:
    """Filter for the lines above the bars: all records except progress."""
    return progress_in(record) is None
