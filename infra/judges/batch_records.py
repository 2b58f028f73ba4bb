"""Records of the batches that a judge has submitted, so that a killed run's are found again.

    batches/{digest of the judge's identity}/{digest of the requests' ids}.json

A record is claimed before its batch is created (one process succeeds) and gets the batch's id
directly after. If the process dies between the two, the batch has the record's `submission` among
its metadata, by which the next run finds it. A record lists the requests whose answers are still to
be collected; it is deleted when there are none.
"""

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from pvar.digest import digest
from pvar.errors import JudgeError, NotFoundError
from pvar.judging import Identity
from pvar.ports import Store

_log = logging.getLogger(__name__)


class BatchRecord(BaseModel):
    """One submitted batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: dict[str, str | int | float | bool | None]
    """The judge's identity, for reading."""
    submission: str
    """Name of this submission, in the batch's metadata."""
    batch_id: str | None = None
    """The server's id; None until the batch is created."""
    custom_ids: tuple[str, ...]
    """The requests whose answers are not collected yet."""


class RecordedBatch(NamedTuple):
    """A record and its key in the store."""

    key: str
    record: BatchRecord


@dataclass(frozen=True)
class BatchRecords:
    """The records of one judge."""

    store: Store
    judge: Identity

    def waiting_for(self, custom_ids: Set[str]) -> list[RecordedBatch]:
        """The batches with answers to some of these requests."""
        found = []
        for info in self.store.list(f"batches/{digest(self.judge)}/"):
            record = self._read(info.key)
            if record is not None and not custom_ids.isdisjoint(record.custom_ids):
                found.append(RecordedBatch(info.key, record))
        return found

    def claim(self, custom_ids: Sequence[str]) -> RecordedBatch:
        """A record for a batch that is about to be created. JudgeError if there is one already."""
        record = BatchRecord(
            judge=dict(self.judge), submission=uuid4().hex, custom_ids=tuple(custom_ids)
        )
        key = f"batches/{digest(self.judge)}/{digest(sorted(custom_ids), length=32)}.json"
        if not self.store.create(key, _bytes(record)):
            raise JudgeError(
                f"{self.store.uri}/{key}: another process is submitting the same batch; wait until "
                "it has ended, and run again"
            )
        return RecordedBatch(key, record)

    def note_batch(self, claimed: RecordedBatch, batch_id: str) -> RecordedBatch:
        """Record the id of the created batch."""
        record = claimed.record.model_copy(update={"batch_id": batch_id})
        self.store.write(claimed.key, _bytes(record))
        return RecordedBatch(claimed.key, record)

    def settle(self, batch: RecordedBatch, collected: Set[str]) -> RecordedBatch:
        """Record that these requests are answered, and delete a record without others."""
        left = tuple(each for each in batch.record.custom_ids if each not in collected)
        if len(left) == len(batch.record.custom_ids):
            return batch
        record = batch.record.model_copy(update={"custom_ids": left})
        if left:
            self.store.write(batch.key, _bytes(record))
        else:
            self.drop(batch)
        return RecordedBatch(batch.key, record)

    def drop(self, batch: RecordedBatch) -> None:
        """Delete the record."""
        self.store.delete(batch.key)

    def _read(self, key: str) -> BatchRecord | None:
        try:
            return BatchRecord.model_validate_json(self.store.read(key))
        except NotFoundError:  # settled by another process meanwhile
            return None
        except ValidationError:
            _log.warning("%s/%s is damaged: its batch cannot be collected", self.store.uri, key)
            return None


def _bytes(record: BatchRecord) -> bytes:
    return record.model_dump_json(indent=1).encode()
