"""Print the results of a command, as a table for people or one JSON object for programs."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Value = float | int | str | None
FigureValue = Value | Mapping[str, float] | Mapping[str, int]


class Figure(NamedTuple):
    """One line of a summary."""

    key: str
    """Stable name in JSON."""
    label: str
    """Name in the table."""
    value: FigureValue
    """NaN means unknown. None is null in JSON; None and {} are omitted from the table."""


def print_summary(title: str, figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print the figures to standard output."""
    if as_json:
        values = {figure.key: _to_json(figure.value) for figure in figures}
        sys.stdout.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False)
    for figure in figures:
        if figure.value is None or figure.value == {}:
            continue
        table.add_row(figure.label, Text(_to_text(figure.value)))
    Console().print(table)


def known(value: Value) -> Value:
    """The value, or None for a float that is NaN or infinite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _to_json(value: FigureValue) -> Value | dict[str, Value]:
    if isinstance(value, Mapping):
        return {name: known(item) for name, item in value.items()}
    return known(value)


def _to_text(value: FigureValue) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_to_text(item)}" for name, item in value.items())
    shown = known(value)
    if shown is None:
        return "–"
    if isinstance(shown, float):
        return f"{shown:.4g}"
    return f"{shown:,}" if isinstance(shown, int) else shown
