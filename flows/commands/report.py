"""`pvar report`: write the HTML report of a run, or the page over all runs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.commands.options import JsonOption


def report(
    run: str = "latest",
    /,
    *,
    out: Path | None = None,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the HTML report of a run from its artifacts, and print its path.

    With --all, the page over all runs and versions of the store: state, win rate, gate and model of
    each run, a chart of the win rates, and results, tags and promotions of each version.

    ```console
    pvar report 20261127-09 --out report.html
    pvar report --all
    ```

    Parameters
    ----------
    run
        Id of the run, as printed by `pvar run`, or its first characters, or `latest`.
    out
        Path of the HTML file (default: `report-RUN.html` in the current folder, or
        `report-all.html`).
    all_
        Write the page over all runs instead.
    as_json
        Print one JSON object with the run and the path. With --all, the run is null.
    """
    from flows.console import console, print_json
    from flows.wiring import connect
    from pvar.errors import ConfigError

    if all_ and run != "latest":
        raise ConfigError(f"report --all is of all runs: leave out {run!r}, or --all")
    wiring = connect()
    written = None
    if all_:
        from flows.overview import write_overview

        path = out or Path("report-all.html")
        write_overview(wiring, path)
    else:
        from flows.run_record import load_run
        from flows.run_report import write_report

        record = load_run(wiring.store, run)
        written = record.run
        path = out or Path(f"report-{record.run}.html")
        write_report(record, wiring, path)
    if as_json:
        print_json({"run": written, "path": str(path.absolute())})
        return
    console().print(str(path.absolute()), highlight=False, soft_wrap=True)
