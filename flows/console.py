"""Console output during a run: log lines, and progress bars on a terminal.

Prefect's console handlers are replaced, so that an error that the user can fix is shown as one
message without a traceback. The full log with tracebacks is in Prefect's UI.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.server import prefect_settings_explained
from pvar.errors import PvarError
from tasks.engine.progress_log import ProgressLog

if TYPE_CHECKING:
    from rich.console import Console

OUR_LOGGERS = ("flows", "tasks", "infra", "pvar")


def console() -> "Console":
    """Standard output, for results."""
    from rich.console import Console

    return Console()


def print_json(value: object) -> None:
    """Write one JSON document to standard output, in one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


class _NoTraceback(logging.Filter):
    """Drops records of errors that are printed as one message at the end."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PvarError):
            record.exc_info = record.exc_text = None
            return False
        return not ("Finished in state Failed" in str(record.msg) or record.levelno < logging.INFO)


@contextmanager
def show_progress(err: "Console | None" = None) -> Iterator[None]:
    """Log to `err` (default: standard error) while the body runs, which uses Prefect."""
    with show_log(err):
        # The first time on a machine it takes ten seconds.
        with ProgressLog("Prefect", "loading"), prefect_settings_explained():
            import prefect.logging.configuration

            prefect.logging.configuration.setup_logging()
        yield


@contextmanager
def show_log(err: "Console | None" = None) -> Iterator[None]:
    """Log to `err` (default: standard error) while the body runs, without Prefect."""
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", ",".join(OUR_LOGGERS))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "600")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # Records from before the flow starts have no flow run in Prefect.
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with log_lines(err):
        yield


@contextmanager
def log_lines(err: "Console | None" = None) -> Iterator[None]:
    """The same, with the environment as it is: for a process that is not ours."""
    from rich.console import Console

    err = err or Console(stderr=True)
    with _bars_on(err) if err.is_terminal else _logging_to(_plain_handler(err)):
        yield


def _plain_handler(err: "Console") -> logging.Handler:
    handler = logging.StreamHandler(err.file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    return handler


@contextmanager
def _bars_on(err: "Console") -> Iterator[None]:
    from rich.live import Live
    from rich.logging import RichHandler

    from flows.terminal import Bars, is_line

    lines = RichHandler(console=err, show_path=False, show_level=False, log_time_format="[%X]")
    lines.addFilter(is_line)
    bars = Bars()
    live = Live(console=err, get_renderable=bars.draw, transient=True)
    with live, _logging_to(lines), _logging_to(bars):
        yield


@contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    handler.addFilter(_NoTraceback())
    loggers = [logging.getLogger(name) for name in OUR_LOGGERS]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
