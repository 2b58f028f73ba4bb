"""`pvar runs`: list the runs in the store."""

from typing import TYPE_CHECKING

from flows.commands.options import JsonOption

if TYPE_CHECKING:
    from flows.past_runs import PastRun


def runs(
    *,
    last: int = 20,
    as_json: JsonOption = False,
) -> None:
    """List the runs in the store, newest first: state, preset, win rate, gate and model.

    A run is done, waiting (for a person), failed, interrupted (by Ctrl-C) or unfinished (it is
    running, or was killed). `pvar report RUN` writes the report of one of them, and `pvar diff RUN
    RUN` compares two.

    ```console
    pvar runs --last 5
    ```

    Parameters
    ----------
    last
        How many, from the newest.
    as_json
        Print a JSON list instead of a table.
    """
    from rich.table import Table
    from rich.text import Text

    from flows.console import console, print_json
    from flows.past_runs import past_runs
    from flows.wiring import connect
    from pvar.errors import ConfigError

    if last < 1:
        raise ConfigError(f"--last is {last}, but must be 1 or more")
    store = connect().store
    found = list(past_runs(store, last))
    if as_json:
        print_json([each.as_row() for each in found])
        return
    if not found:
        console().print(
            f"{store.uri} has no runs yet; start one: pvar run --preset demo",
            highlight=False,
            soft_wrap=True,
        )
        return
    table = Table(box=None)
    table.add_column("run", no_wrap=True, min_width=20)  # the id in one piece, for copying
    for name in ("state", "preset", "win rate", "gate", "model"):
        table.add_column(name)
    for each in found:
        table.add_row(
            each.run, each.state, Text(each.preset or "–"), _win_rate(each), _gate(each),
            _model(each),
        )  # fmt: skip
    console().print(table, highlight=False)


def _win_rate(run: "PastRun") -> str:
    if run.win_rate is None:
        return "–"
    bounds = (run.win_rate_lower, run.win_rate_upper)
    lower, upper = ("–" if bound is None else f"{bound:.1%}" for bound in bounds)
    return f"{run.win_rate:.1%} ({lower} to {upper})"


def _gate(run: "PastRun") -> str:
    return {None: "–", True: "passed", False: "failed"}[run.gate_passed]


def _model(run: "PastRun") -> str:
    if run.model is None:
        return "–"
    return f"{run.model}, promoted" if run.is_champion else run.model
