"""Notes of outages that could not be recorded, because the store itself did not answer.

They are files in this machine's home, and the next retraining there records them. Without them the
attempt would stay open and count as a run that was killed.
"""

import hashlib
import logging
import os
from datetime import datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from pvar.ports import Store
from pvar.retrain_decision import Batch
from tasks.retraining.batch_states import RetrainingBatch, read_records, record_outage
from tasks.retraining.batches import Attempt

logger = logging.getLogger(__name__)


class OutageNote(BaseModel):
    """An outage, and the attempt that met it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int
    attempt: Attempt
    at: AwareDatetime
    error: str


def note_outage(
    home: Path, store: Store, batch: Batch, attempt: Attempt, error: str, now: datetime
) -> None:
    """Keep a note for the next retraining."""
    note = OutageNote(batch=batch.number, attempt=attempt, at=now, error=error)
    folder = _folder(home, store)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{batch.number:06d}-{attempt.number}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(note.model_dump_json())
        os.replace(partial, path)  # a kill or a full disk leaves no half note
    except OSError as failure:  # the outage itself is raised
        logger.warning("batch %d: its outage could not be noted: %s", batch.number, failure)


def record_noted_outages(home: Path, store: Store) -> list[RetrainingBatch]:
    """Record what was noted, and return the records of all batches. Invalid notes are deleted."""
    records = read_records(store)
    paths = sorted(_folder(home, store).glob("*.json"))
    for path in paths:
        try:
            note = OutageNote.model_validate_json(path.read_bytes())
        except ValidationError as error:
            logger.warning("%s is not a note of an outage and is deleted: %s", path, error)
        else:
            _record_noted(store, records, note)
        path.unlink()
    return read_records(store) if paths else records


def _record_noted(store: Store, records: list[RetrainingBatch], note: OutageNote) -> None:
    for record in records:
        open_attempts = {(a.number, a.started_at) for a in record.attempts if a.error is None}
        is_open = (note.attempt.number, note.attempt.started_at) in open_attempts
        if record.batch.number == note.batch and is_open:
            record_outage(store, record.batch, note.attempt, note.error, note.at)


def _folder(home: Path, store: Store) -> Path:
    name = hashlib.sha256(store.uri.encode()).hexdigest()[:16]
    return home / "retrain" / "outages" / name
