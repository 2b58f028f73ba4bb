"""`pvar report`: write the HTML report of a run."""

from pathlib import Path


def report(run: str = "latest", /, *, out: Path | None = None) -> None:
    """Write the HTML report of a run from its artifacts, and print its path.

    Parameters
    ----------
    run
        Id of the run, as printed by `pvar run`, or `latest` for the newest.
    out
        Path of the HTML file (default: `report-RUN.html` in the current folder).
    """
    from flows.console import console
    from flows.run_record import load_run
    from flows.run_report import write_report
    from flows.wiring import connect

    wiring = connect()
    record = load_run(wiring.store, run)
    path = out or Path(f"report-{record.run}.html")
    write_report(record, wiring, path)
    console().print(str(path.absolute()), highlight=False, soft_wrap=True)
