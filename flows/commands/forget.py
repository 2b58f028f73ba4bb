"""`pvar forget`: withdraw prompts, so that they are never used again."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.wiring import Wiring


def forget(*, ids: Path | None = None, reason: str | None = None) -> None:
    """Withdraw prompts: no later run reads, replays or asks them. Without --ids: list withdrawals.

    What exists stays as it is: `pvar lineage --withdrawn` names the model versions that were
    trained on them.

    Parameters
    ----------
    ids
        File with one prompt id per line, or rows with a prompt in the forms of ingest.source or
        with `prompt_id` (JSON lines, Parquet). Ids that the store does not have are withdrawn, too.
    reason
        Why, for the record.
    """
    from flows.wiring import connect

    wiring = connect()
    if ids is not None:
        _withdraw(ids, reason, wiring)
    else:
        _list(wiring)


def _withdraw(path: Path, reason: str | None, wiring: "Wiring") -> None:
    from datetime import UTC, datetime

    from flows.console import console
    from flows.withdrawal import known_prompts, read_ids
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
