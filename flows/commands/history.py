"""`pvar history`: show who moved the champion, when, from and to which version, and why."""

import json
import sys
from typing import Annotated

from cyclopts import Parameter


def history(
    model: str, /, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> None:
    """Show every move of a model's champion, newest last.

    Parameters
    ----------
    model
        Name of the registered model.
    as_json
        Print a JSON list instead of a table.
    """
    from flows.promotions import read_history
    from flows.wiring import connect

    moves = read_history(connect().registry, model)
    if as_json:
        rows = [
            {**move.model_dump(mode="json"), **results._asdict(), "has_files": has_files}
            for move, results, has_files in moves
        ]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    from flows.console import console

    if not moves:
        console().print(f"{model} has had no champion yet", highlight=False)
        return
    table = Table("", "when (UTC)", "from", "to", "win rate", "who", "why", box=None)
    for move, results, has_files in moves:
        table.add_row(
            str(move.number),
            f"{move.at:%Y-%m-%d %H:%M}",
            _version(move.from_version),
            _version(move.to_version) + ("" if has_files else " (its files are gone)"),
            str(results),
            Text(move.by),
            Text(f"{move.kind.replace('_', ' ')}: {move.reason}"),
        )
    console().print(table)


def _version(version: int | None) -> str:
    return "–" if version is None else str(version)
