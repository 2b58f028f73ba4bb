"""Says which stage begins: a line of the log, and the heading of the bars on a terminal."""

import logging

logger = logging.getLogger(__name__)


def announce_stage(text: str) -> None:
    """Log that a stage begins: `stage 3 of 9: score-vader`."""
    logger.info("%s", text, extra={"heading": text})


def heading_in(record: logging.LogRecord) -> str | None:
    """The announcement that a record is; None for any other record."""
    heading = getattr(record, "heading", None)
    return heading if isinstance(heading, str) else None
