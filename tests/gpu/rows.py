"""One check of `make gpu-check`, its row, and the table of all rows."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

MAX_REASON = 400
"""Characters of a reason that are shown; an error can have pages."""

Outcome = Literal["ok", "failed", "left out"]


class LeftOut(Exception):
    """Why a check cannot be run on this machine."""


class Found(NamedTuple):
    """What a check measured, and what is wrong with it."""

    figures: Sequence[str]
    problems: Sequence[str] = ()


class Check(NamedTuple):
    """A check by its name, and the packages without which it is left out."""

    name: str
    needs: Sequence[str]
    run: Callable[[Any], Found]


@dataclass(frozen=True)
class Row:
    """The result of a check."""

    name: str
    outcome: Outcome
    figures: Sequence[str] = ()
    reason: str = ""
    """Why it failed or was left out."""
    seconds: float | None = None
    peak_gb: float | None = None
    """Most memory of the GPU that torch used in this process (10^9 bytes); None on a CPU."""
    left_mb: float | None = None
    """Tensors that were still there after the check, less those before (10^6 bytes)."""
    reserved_mb: float | None = None
    """Memory of the GPU that was not free after the check, less that before the first one."""


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| check | outcome | figures | why | s | peak GB |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (
            row.name,
            row.outcome,
            "<br>".join(map(_cell, row.figures)),
            _cell(row.reason),
            _number(row.seconds),
            _number(row.peak_gb),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def failure(name: str, error: BaseException, **parts: Any) -> Row:
    """The row of a check that ended in an error."""
    return Row(name, "failed", reason=f"{type(error).__name__}: {error}", **parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _cell(text: str) -> str:
    """The text on one line, of bounded length, without the table's own signs."""
    text = re.sub(r"\s+", " ", text).strip()
    if len(text) > MAX_REASON:
        text = f"{text[: MAX_REASON - 1]}…"
    return text.replace("|", "\\|").replace("<", "&lt;")
