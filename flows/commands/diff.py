"""`pvar diff`: in what two runs differ."""

import json
from collections.abc import Mapping

from flows.commands.options import JsonOption


def diff(
    first: str,
    second: str,
    /,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show in what two runs differ: settings, and the figures of the stages that both completed.

    ```console
    pvar diff latest 20261127-09
    ```

    Parameters
    ----------
    first
        Id of a run (`pvar runs`), or `latest` for the newest.
    second
        The other one.
    as_json
        Print one JSON object instead of tables.
    """
    from flows.console import console, print_json
    from flows.past_runs import run_difference
    from flows.wiring import connect

    found = run_difference(connect().store, first, second)
    if as_json:
        print_json(found._asdict())
        return
    _print_table("setting", first, second, found.settings)
    for node, figures in found.figures.items():
        _print_table(node, first, second, figures)
    shared = ", ".join(found.shared) or "none"
    console().print(f"one artifact for both: {shared}", highlight=False, soft_wrap=True)


def _print_table(
    title: str, first: str, second: str, values: Mapping[str, tuple[object, object]]
) -> None:
    from rich.table import Table
    from rich.text import Text

    from flows.console import console

    if not values:
        console().print(f"{title}: no difference", highlight=False)
        return
    table = Table(title, first, second, box=None)
    for name, both in values.items():
        table.add_row(name, *(Text(_shown(each)) for each in both))
    console().print(table, highlight=False)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else json.dumps(value, ensure_ascii=False).strip('"')
