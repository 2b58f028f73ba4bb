"""`pvar forget`: withdraw prompts, so that they are never used again, and erase their rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter

from flows.commands.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from flows.wiring import Wiring
    from pvar.withdrawal import Withdrawal
    from tasks.retraining.erasures import Erasure


def forget(
    *,
    ids: Path | None = None,
    reason: str | None = None,
    erase: Annotated[bool, Parameter(negative=())] = False,
    yes: Annotated[bool, Parameter(negative=())] = False,
    as_json: JsonOption = False,
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
    as_json
        Print one JSON object: what was withdrawn, what is or was erased, and all withdrawals.
    """
    from flows.console import print_json
    from flows.wiring import connect
    from pvar.errors import InputError

    if yes and not erase:
        raise InputError("--yes is for --erase; nothing was withdrawn or removed")
    wiring = connect()
    withdrawn = None if ids is None else _withdraw(ids, reason, wiring)
    erasure = _erase(wiring, is_wanted=yes) if erase else None
    if as_json:
        document = {
            "withdrawn": None if withdrawn is None else withdrawn._asdict(),
            "erasure": None if erasure is None else erasure.model_dump(mode="json"),
            "withdrawals": [each.model_dump(mode="json") for each in _withdrawals(wiring)],
        }
        print_json(document)
        return
    if withdrawn is not None:
        _say(withdrawn.sentence)
    if erase:
        _print_erasure(erasure, is_wanted=yes)
    elif withdrawn is None:
        _print_withdrawals(wiring)


def _say(text: str) -> None:
    from flows.console import console

    console().print(text, highlight=False, markup=False, soft_wrap=True)


class _Withdrawn(NamedTuple):
    """Numbers of prompts that a file names."""

    num_new: int
    num_before: int
    """Withdrawn earlier."""
    num_in_store: int
    num_elsewhere: int

    @property
    def sentence(self) -> str:
        return (
            f"{self.num_new} prompts are withdrawn; {self.num_before} were before. "
            f"{self.num_in_store} are in this store, {self.num_elsewhere} are not and are left out "
            "if they arrive"
        )


def _withdraw(path: Path, reason: str | None, wiring: "Wiring") -> _Withdrawn:
    from datetime import UTC, datetime

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
    num_known = len(known_prompts(named, wiring))
    return _Withdrawn(num_new, len(named) - num_new, num_known, len(named) - num_known)


def _withdrawals(wiring: "Wiring") -> "Sequence[Withdrawal]":
    from tasks.retraining.withdrawals import read_withdrawals

    return read_withdrawals(wiring.store)


def _print_withdrawals(wiring: "Wiring") -> None:
    from rich.table import Table
    from rich.text import Text

    from flows.console import console

    withdrawals = _withdrawals(wiring)
    if not withdrawals:
        _say(f"{wiring.store.uri} has no withdrawals")
        return
    table = Table("withdrawn (UTC)", "prompts", "reason", box=None)
    for each in withdrawals:
        table.add_row(
            f"{each.withdrawn_at:%Y-%m-%d %H:%M}",
            str(len(each.prompt_ids)),
            Text(each.reason or "–"),
        )
    console().print(table)


def _erase(wiring: "Wiring", *, is_wanted: bool) -> "Erasure | None":
    """Erase, or look what there is to erase; None if that is nothing."""
    from datetime import UTC, datetime

    from flows.erasing import carry_out_erasure, plan_erasure

    if is_wanted:
        return carry_out_erasure(wiring, datetime.now(UTC))
    plan = plan_erasure(wiring, datetime.now(UTC))
    return None if plan.is_empty else plan.erasure


def _print_erasure(erasure: "Erasure | None", *, is_wanted: bool) -> None:
    from flows.console import console

    if erasure is None:
        _say("the store holds no rows of withdrawn prompts")
        return
    console().print(_table(erasure))
    for key in erasure.kept:
        _say(f"not changed, and holds or quotes such a row: {key}")
    did = "was removed; see" if is_wanted else "is removed with --yes; the record will be"
    _say(
        f"this {did} erasures/{erasure.number:06d}.json. Models stay trained on these rows: "
        "pvar lineage --withdrawn"
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
