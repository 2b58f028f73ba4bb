"""`pvar batches`: the batches of retraining, their states and labels, and what a person decides."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from flows.commands.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from flows.batch_labels import GroupAgreement
    from pvar.ports import Store
    from tasks.retraining.batch_states import BatchState, RetrainingBatch

app = App(name="batches", version_flags=())

START = "start it now: pvar retrain"

NUM_PRINTED = 10
"""Disputed rows that are printed; a file has all that are recorded."""


@app.default
def batches(*, as_json: JsonOption = False) -> None:
    """List the batches of retraining with their states, rows, attempts and reasons.

    ```console
    pvar batches
    ```

    Parameters
    ----------
    as_json
        Print a JSON list instead of a table.
    """
    from flows.console import console, print_json
    from flows.wiring import connect
    from tasks.engine.lease import is_claimed
    from tasks.retraining.batch_states import read_records
    from tasks.retraining.batches import LEASE

    store = connect().store
    is_retraining = is_claimed(store, LEASE)
    listed = [(record, record.state(is_retraining=is_retraining)) for record in read_records(store)]
    if as_json:
        rows = [_row(record, state) for record, state in listed]
        print_json(rows)
        return
    from rich.table import Table
    from rich.text import Text

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
def show(
    number: int,
    /,
    *,
    out: Path | None = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far models agree with a batch's labels, and the rows that they are most against.

    ```console
    pvar batches show 3 --out disputed.jsonl
    ```

    Parameters
    ----------
    number
        Number of the batch, from `pvar batches`.
    out
        Write these rows to a JSON-lines file in the form of incoming files, most disputed first.
    as_json
        Print a JSON object instead of a table.
    """
    from flows.batch_labels import agreement_of, disputed_rows
    from flows.console import console, print_json
    from flows.wiring import connect
    from infra.row_files import write_rows
    from tasks.retraining.batch_states import find_record

    wiring = connect()
    record = find_record(wiring.store, number)
    rows = disputed_rows(wiring, record)
    if out is not None:
        write_rows(out, rows)
    if as_json:
        audit = None if record.audit is None else record.audit.model_dump(mode="json")
        print_json({"number": number, "audit": audit, "rows": rows})
        return

    def say(text: str) -> None:
        console().print(text, highlight=False, markup=False, soft_wrap=True)

    if record.audit is None:
        say(f"batch {number}: no model was asked about its labels (label_audit)")
        return
    console().print(_agreement_table(agreement_of([record])))
    for each in record.audit.disagreements:
        say(each.sentence)
    for row in rows[:NUM_PRINTED] if out is None else ():
        say(json.dumps(row, ensure_ascii=False))
    if record.is_held:
        say(f"to run it: pvar batches accept {number}; if not: pvar batches reject {number}")


@app.command
def agreement(*, as_json: JsonOption = False) -> None:
    """Show how far models agreed with the labels of each batch, by source and annotator.

    No model had seen the labels that it was asked about. Batches that are held are shown, and are
    no part of the agreement with which later ones are compared.

    ```console
    pvar batches agreement
    ```

    Parameters
    ----------
    as_json
        Print a JSON list instead of a table.
    """
    from flows.batch_labels import agreement_of
    from flows.console import console, print_json
    from flows.wiring import connect
    from tasks.retraining.batch_states import read_records

    rows = agreement_of(read_records(connect().store))
    if as_json:
        print_json([row._asdict() for row in rows])
    elif rows:
        console().print(_agreement_table(rows))
    else:
        console().print("no model was asked about any labels (label_audit)", highlight=False)


@app.command
def accept(number: int, /, *, reason: str, as_json: JsonOption = False) -> None:
    """Accept the labels of a batch that is held: the next retraining runs it.

    Its labels then count as good, and later ones are compared with them, too.

    ```console
    pvar batches accept 3 --reason 'new guidelines since May'
    ```

    Parameters
    ----------
    number
        Number of the batch, from `pvar batches`.
    reason
        The reason. It is stored with the batch.
    as_json
        Print the batch as one JSON object, as `pvar batches --json` lists it.
    """
    from datetime import UTC, datetime

    from flows.wiring import connect
    from infra.actor import whoami
    from tasks.retraining.batch_states import accept_labels

    store = connect().store
    accept_labels(store, number, by=whoami(), reason=reason, now=datetime.now(UTC))
    _print_decided(store, number, f"waits for its run; {START}", as_json=as_json)


@app.command
def reject(number: int, /, *, reason: str, as_json: JsonOption = False) -> None:
    """Set a batch aside that is held because of its labels: nothing is trained on its rows.

    To use its rows with corrected labels, put the corrected files into the incoming folder.

    ```console
    pvar batches reject 3 --reason 'answers were swapped'
    ```

    Parameters
    ----------
    number
        Number of the batch, from `pvar batches`.
    reason
        The reason. It is stored with the batch.
    as_json
        Print the batch as one JSON object, as `pvar batches --json` lists it.
    """
    from datetime import UTC, datetime

    from flows.wiring import connect
    from infra.actor import whoami
    from tasks.retraining.batch_states import reject_labels

    store = connect().store
    reject_labels(store, number, by=whoami(), reason=reason, now=datetime.now(UTC))
    put_back = f"to put it back: pvar batches retry {number}"
    _print_decided(store, number, f"is set aside; {put_back}", as_json=as_json)


@app.command
def retry(number: int, /, *, as_json: JsonOption = False) -> None:
    """Put a batch back that is set aside, waits for approval, or pauses after an outage.

    The next retraining runs it, unless its labels were rejected: then it is held again. If it is
    set aside or waits, it is run with the configuration of that retraining instead of the run that
    waits, and its earlier attempts do not count any more.

    ```console
    pvar batches retry 3
    ```

    Parameters
    ----------
    number
        Number of the batch, from `pvar batches`.
    as_json
        Print the batch as one JSON object, as `pvar batches --json` lists it.
    """
    from datetime import UTC, datetime

    from flows.wiring import connect
    from tasks.retraining.batch_states import retry_batch

    store = connect().store
    record = retry_batch(store, number, datetime.now(UTC))
    held = f"is held again: pvar batches show {number}"
    became = held if record.is_held else f"waits for its run; {START}"
    _print_decided(store, number, became, as_json=as_json)


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
    return [*record.batch.reasons, *errors, *outage, *_about_labels(record)]


def _about_labels(record: "RetrainingBatch") -> list[str]:
    """What models say against the labels, and what a person decided about them."""
    sentences = [each.sentence for each in record.audit.disagreements] if record.audit else []
    if record.accepted is not None:
        sentences.append(f"labels accepted by {record.accepted.by}: {record.accepted.reason}")
    if record.set_aside is not None and record.set_aside.by is not None:
        sentences.append(f"labels rejected by {record.set_aside.by}: {record.set_aside.reason}")
    return sentences


def _agreement_table(rows: "list[GroupAgreement]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    columns = ("model", "of", "batch", "state", "agreement", "95 % interval", "labels", "missing")
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(
            Text(row.model),
            Text(f"{row.grouping} {row.group}"),
            str(row.batch),
            row.state.replace("_", " "),
            "–" if row.agreement is None else f"{row.agreement:.1%}",
            "–" if row.lower is None else f"{row.lower:.1%} to {row.upper:.1%}",
            str(row.num_labels),
            str(row.num_missing),
        )
    return table


def _print_decided(store: "Store", number: int, became: str, *, as_json: bool) -> None:
    """What became of a batch by a person's decision."""
    from flows.console import console, print_json
    from tasks.engine.lease import is_claimed
    from tasks.retraining.batch_states import find_record
    from tasks.retraining.batches import LEASE

    if not as_json:
        console().print(f"batch {number} {became}")
        return
    record = find_record(store, number)
    print_json(_row(record, record.state(is_retraining=is_claimed(store, LEASE))))


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
        "attempts": [each.model_dump(mode="json", exclude={"token"}) for each in record.attempts],
        "outage": outage.model_dump(mode="json", exclude={"attempt"}) if outage else None,
        "set_aside_at": record.set_aside.since.isoformat() if record.set_aside else None,
        "disagreements": (
            [each.sentence for each in record.audit.disagreements] if record.audit else None
        ),
        "labels_accepted": record.accepted.model_dump(mode="json") if record.accepted else None,
        "run": done.run if done else waiting.run if waiting else None,
    }
