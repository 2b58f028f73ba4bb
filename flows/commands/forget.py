"""`pvar forget`: withdraw prompts, so that they are never used again, and erase their rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from flows.wiring import Wiring
    from tasks.retraining.erasures import Erasure


def forget(
    *,
    ids: Path | None = None,
    reason: str | None = None,
    erase: Annotated[bool, Parameter(negative=())] = False,
    yes: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Withdraw prompts: no later run reads, replays or asks them. Without options: list
    withdrawals.

    What exists stays as it is, unless --erase removes it. A model cannot unlearn them: `pvar
    lineage --withdrawn` names the versions that were trained on them.

    ```console
    pvar forget --ids withdrawn.txt --reason 'request of 3 May'
    pvar forget --erase
    ```

    Parameters
    ----------
    ids
        File with one prompt id per line, or rows with a prompt in the forms of ingest.source or
        with `prompt_id` (JSON lines, Parquet). Ids that the store does not have are withdrawn, too.
    reason
        Why, for the record.
    erase
        Show what the store holds of all withdrawn prompts: rows of artifacts, of batches and exams,
        cached verdicts, reports. With --yes they are removed. Artifacts stay complete, and a record
        in `erasures/` says what was removed. Your own files are named, and not changed.
    yes
        Remove what --erase shows.
    """
    from flows.wiring import connect
    from pvar.errors import InputError

    if yes and not erase:
        raise InputError("--yes is for --erase; nothing was withdrawn or removed")
    wiring = connect()
    if ids is not None:
        _withdraw(ids, reason, wiring)
    if erase:
        _erase(wiring, is_wanted=yes)
    elif ids is None:
        _list(wiring)


def _withdraw(path: Path, reason: str | None, wiring: "Wiring") -> None:
    from datetime import UTC, datetime

    from flows.console import console
    from flows.withdrawn_prompts import known_prompts, read_ids
    from pvar.errors import InputError
    from tasks.retraining.incoming_files import forget_inspected
    from tasks.retraining.withdrawals import withdraw

    named = read_ids(path)
    if not named:
        raise InputError(f"{path} names no prompt; give one id per line, or rows with a prompt")
    withdrawal = withdraw(wiring.store, named, reason=reason, now=datetime.now(UTC))
    forget_inspected(wiring.store)  # withdrawn rows do not count as new
    num_new = len(withdrawal.prompt_ids) if withdrawal else 0
    known = known_prompts(named, wiring)
    console().print(
        f"{num_new} prompts are withdrawn; {len(named) - num_new} were before. "
        f"{len(known)} are in this store, {len(named) - len(known)} are not and are left out if "
        "they arrive",
        highlight=False,
        soft_wrap=True,
    )


def _list(wiring: "Wiring") -> None:
    from rich.table import Table
    from rich.text import Text

    from flows.console import console
    from tasks.retraining.withdrawals import read_withdrawals

    withdrawals = read_withdrawals(wiring.store)
    if not withdrawals:
        console().print(f"{wiring.store.uri} has no withdrawals", highlight=False, markup=False)
        return
    table = Table("withdrawn (UTC)", "prompts", "reason", box=None)
    for each in withdrawals:
        table.add_row(
            f"{each.withdrawn_at:%Y-%m-%d %H:%M}",
            str(len(each.prompt_ids)),
            Text(each.reason or "–"),
        )
    console().print(table)


def _erase(wiring: "Wiring", *, is_wanted: bool) -> None:
    from datetime import UTC, datetime

    from flows.console import console
    from flows.erasing import carry_out_erasure, plan_erasure

    if is_wanted:
        erasure = carry_out_erasure(wiring, datetime.now(UTC))
    else:
        plan = plan_erasure(wiring, datetime.now(UTC))
        erasure = None if plan.is_empty else plan.erasure
    if erasure is None:
        console().print("the store holds no rows of withdrawn prompts", highlight=False)
        return
    console().print(_table(erasure))
    for key in erasure.kept:
        text = f"not changed, and holds or quotes such a row: {key}"
        console().print(text, highlight=False, markup=False, soft_wrap=True)
    did = "was removed; see" if is_wanted else "is removed with --yes; the record will be"
    console().print(
        f"this {did} erasures/{erasure.number:06d}.json. Models stay trained on these rows: "
        "pvar lineage --withdrawn",
        highlight=False,
        soft_wrap=True,
    )


def _table(erasure: "Erasure") -> "Table":
    from rich.table import Table

    table = Table("of withdrawn prompts", "rows", box=None)
    for name, num_rows in (*erasure.tables.items(), *erasure.objects.items()):
        table.add_row(name, str(num_rows))
    for name in erasure.deleted:
        table.add_row(f"{name} (incomplete)", "all")
    table.add_row("cached verdicts", str(erasure.num_verdicts))
    for run in erasure.runs:
        table.add_row(f"report of run {run}", "made again")
    return table
