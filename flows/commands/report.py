"""`pvar report`: the HTML report of a run."""

from pathlib import Path


def report(run: str = "latest", /, *, out: Path | None = None) -> None:
    """Write the report of a run from its artifacts, and say where it is.

    Parameters
    ----------
    run
        Id of the run, as `pvar run` printed it; `latest` is the newest.
    out
        Path of the HTML file; `report-RUN.html` in this folder if not given.
    """
    from flows.console import console
    from flows.run_record import load_run
    from flows.run_report import write_report
    from flows.wiring import connect

    wiring = connect()
    record = load_run(wiring.store, run)
    path = write_report(record, wiring, out or Path(f"report-{record.run}.html"))
    console().print(str(path.absolute()), highlight=False, soft_wrap=True)
