"""What a person sees while a run goes on: a progress line on a terminal, plain log lines elsewhere.

Prefect's own console handlers are replaced, so that an error the user can mend shows as one message
and not as a traceback; the full log with tracebacks is in Prefect's UI.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pvar.errors import PvarError

if TYPE_CHECKING:
    from rich.console import Console

OUR_LOGGERS = ("flows", "tasks", "infra", "pvar")


def console() -> "Console":
    """Standard output, for results."""
    from rich.console import Console

    return Console()


class _NoTraceback(logging.Filter):
    """Drops the tracebacks of errors that are messages for the user, printed at the end."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PvarError):
            record.exc_info = record.exc_text = None
            return False
        return not ("Finished in state Failed" in str(record.msg) or record.levelno < logging.INFO)


@contextmanager
def show_progress() -> Iterator[None]:
    """Log to standard error for as long as the body runs."""
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", ",".join(OUR_LOGGERS))
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from rich.console import Console

    err = Console(stderr=True)
    if not err.is_terminal:
        handler: logging.Handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        with _logging_to(handler):
            yield
        return
    from rich.logging import RichHandler
    from rich.status import Status

    with Status("starting", console=err) as status:
        rich = RichHandler(console=err, show_path=False, show_level=False, log_time_format="[%X]")
        with _logging_to(rich), _logging_to(_StatusHandler(status)):
            yield


class _StatusHandler(logging.Handler):
    """Shows the newest message as the line that spins."""

    def __init__(self, status: "object") -> None:
        super().__init__(logging.INFO)
        self._status = status

    def emit(self, record: logging.LogRecord) -> None:
        self._status.update(record.getMessage())  # type: ignore[attr-defined]


@contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    import prefect.logging.configuration

    prefect.logging.configuration.setup_logging()
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
