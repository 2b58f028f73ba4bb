"""`pvar batches`: the batches of retraining, their states, and how to try one again."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from tasks.retraining.batch_states import BatchState, RetrainingBatch

app = App(name="batches", version_flags=())


@app.default
def batches(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """List the batches of retraining with their states, rows, attempts and reasons.

    Parameters
    ----------
    as_json
        Print a JSON list instead of a table.
    """
    from flows.retraining import LEASE
    from flows.wiring import connect
    from tasks.engine.lease import is_held
    from tasks.retraining.batch_states import read_records

    store = connect().store
    is_retraining = is_held(store, LEASE)
    listed = [(record, record.state(is_retraining=is_retraining)) for record in read_records(store)]
    if as_json:
        rows = [_row(record, state) for record, state in listed]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    from flows.console import console

    if not listed:
        console().print(f"{store.uri} has no batches yet", highlight=False, markup=False)
        return
    columns = ("made (UTC)", "state", "rows", "labelled", "replayed", "attempts", "why")
    table = Table("", *columns, box=None)
    for record, state in listed:
        table.add_row(
            str(record.batch.number),
            f"{record.batch.created_at:%Y-%m-%d %H:%M}",
            Text(_state_text(record, state)),
            str(record.batch.num_pairs),
            "–" if record.batch.num_labelled is None else str(record.batch.num_labelled),
            str(sum(each.num_rows for each in record.batch.replayed)),
            str(len(record.counted)),
            Text("; ".join(_reasons(record))),
        )
    console().print(table)


@app.command
def retry(number: int, /) -> None:
    """Put a batch back that is set aside, waits for approval, or pauses after an outage.

    The next retraining runs it. If it is set aside or waits, with the configuration of that
    retraining instead of the run that waits, and its earlier attempts do not count any more.

    Parameters
    ----------
    number
        Number of the batch, from `pvar batches`.
    """
    from datetime import UTC, datetime

    from flows.console import console
    from flows.wiring import connect
    from tasks.retraining.batch_states import retry_batch

    retry_batch(connect().store, number, datetime.now(UTC))
    console().print(f"batch {number} waits for its run; start it now: pvar retrain")


def _state_text(record: "RetrainingBatch", state: "BatchState") -> str:
    if state == "retried_after_outage" and record.outage is not None:
        return f"retried after outage at {record.outage.not_before:%Y-%m-%d %H:%M}"
    if state == "done" and record.done is not None:
        return f"done, run {record.done.run}"
    return state.replace("_", " ")


def _reasons(record: "RetrainingBatch") -> list[str]:
    """Why the batch was made, and why its runs ended, in this order."""
    errors = [f"attempt {a.number}: {a.error}" for a in record.attempts if a.error]
    outage = [f"outage: {record.outage.error}"] if record.outage and not record.done else []
    return [*record.batch.reasons, *errors, *outage]


def _row(record: "RetrainingBatch", state: "BatchState") -> dict[str, object]:
    """A batch as a JSON object. Unknown values are null."""
    batch, outage, done, waiting = record.batch, record.outage, record.done, record.waiting
    return {
        "number": batch.number,
        "created_at": batch.created_at.isoformat(),
        "state": state,
        "rows": batch.num_pairs,
        "labelled": batch.num_labelled,
        "replayed": [each.model_dump() for each in batch.replayed],
        "rejected": dict(batch.row_counts.rejected) if batch.row_counts else None,
        "files": [file.key for file in batch.files],
        "reasons": list(batch.reasons),
        "counted_attempts": len(record.counted),
        "attempts": [attempt.model_dump(mode="json") for attempt in record.attempts],
        "outage": outage.model_dump(mode="json") if outage else None,
        "set_aside_at": record.set_aside.since.isoformat() if record.set_aside else None,
        "run": done.run if done else waiting.run if waiting else None,
    }
