"""`pvar gc`: delete artifacts that no run or model version refers to, and unused model copies."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from flows.commands.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from flows.garbage_collection import Sweep
    from tasks.engine.local_copies import LocalFolder


def gc(
    *,
    keep_runs: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None,
    delete: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonOption = False,
) -> None:
    """Show unused artifacts, and delete them with --delete.

    An artifact is in use if a run, a comparison, a registered model version or another artifact in
    use refers to it, or if a stage is working on it. MLflow's files and cached verdicts are kept.
    Local copies of models are deleted if no process uses one; a stage that needs a copy fetches it
    again.

    ```console
    pvar gc
    pvar gc --keep-runs 10 --delete
    ```

    Parameters
    ----------
    keep_runs
        Number of newest runs and comparisons whose artifacts are in use (default: all). Those of a
        run that waits for a person are in use as well.
    delete
        Delete what is shown. By default nothing is deleted.
    as_json
        Print one JSON object instead of a table.
    """
    from flows.console import console, print_json
    from flows.garbage_collection import carry_out, plan_sweep
    from flows.wiring import connect

    wiring = connect()
    sweep = plan_sweep(wiring, keep_runs)
    if as_json:
        print_json(_to_json(sweep, carry_out(sweep, wiring) if delete else None))
        return
    _print(sweep)
    plan = sweep.plan
    if delete:
        num_deleted = carry_out(sweep, wiring)
        console().print(f"deleted {num_deleted} artifacts", highlight=False)
    elif plan.artifacts or plan.stale_leases or sweep.folders or sweep.copies:
        console().print("nothing was deleted; add --delete to do so", highlight=False)


def _to_json(sweep: "Sweep", num_deleted: int | None) -> dict[str, object]:
    return {
        "artifacts": [
            {**each._asdict(), "modified": each.modified.isoformat(timespec="seconds")}
            for each in sweep.plan.artifacts
        ],
        "num_stale_leases": len(sweep.plan.stale_leases),
        "num_needed": sweep.plan.num_needed,
        "folders": [_folder(each) for each in sweep.folders],
        "copies": [_folder(each) for each in sweep.copies],
        "num_deleted": num_deleted,
    }


def _folder(folder: "LocalFolder") -> dict[str, object]:
    return {"path": str(folder.path), "num_bytes": folder.num_bytes}


def _print(sweep: "Sweep") -> None:
    from rich.filesize import decimal

    from flows.console import console

    plan = sweep.plan
    if plan.artifacts or sweep.folders or sweep.copies:
        console().print(_table(sweep))
    size = decimal(sum(garbage.num_bytes for garbage in plan.artifacts))
    copies = decimal(sum(copy.num_bytes for copy in sweep.copies))
    console().print(
        f"{len(plan.artifacts)} artifacts ({size}), {len(plan.stale_leases)} stale leases and "
        f"{len(sweep.folders)} work folders are not needed; {plan.num_needed} artifacts are; "
        f"{len(sweep.copies)} local copies ({copies}) can be fetched again",
        highlight=False,
        soft_wrap=True,
    )


def _table(sweep: "Sweep") -> "Table":
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("not needed", "objects", "size", "last change (UTC)", box=None)
    for garbage in sweep.plan.artifacts:
        table.add_row(
            garbage.root,
            str(garbage.num_objects),
            decimal(garbage.num_bytes),
            f"{garbage.modified:%Y-%m-%d %H:%M}",
        )
    for folder in (*sweep.folders, *sweep.copies):
        table.add_row(str(folder.path), "", decimal(folder.num_bytes), "")
    return table
