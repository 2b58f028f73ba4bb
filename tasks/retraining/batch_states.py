"""The state of each batch, from its records, and the changes of state that no run makes.

    waiting_for_run        its run starts with the next retraining
    running                its run was started, and the retraining that started it is alive
    waiting_for_labels     models disagree with its labels, and a person has not accepted them
    waiting_for_approval   its run waits for a person
    retried_after_outage   its last run met an outage; a later retraining tries again
    set_aside              too many of its runs failed, or a person rejected its labels; `pvar
                           batches retry` puts it back
    done                   a run succeeded

A run that fails or vanishes counts against its batch. One that meets an outage (`infra/outages.py`)
does not: the batch is tried again, after a pause that doubles with each outage in a row.

That a run met an outage or waits is recorded first, and then its attempt is deleted. A kill in
between leaves both; `record_vanished` deletes the attempt then.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby
from typing import Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pvar.errors import InputError
from pvar.ports import Store
from pvar.retrain_decision import Batch
from tasks.retraining.batches import (
    BATCHES,
    Attempt,
    Record,
    Success,
    WaitingRun,
    folder_of,
    forget_waiting_run,
    read_record,
    record_failure,
    take_back,
    to_json,
)
from tasks.retraining.label_audits import ACCEPTED, AGREEMENT, LabelAcceptance, LabelAudit

FIRST_PAUSE = timedelta(minutes=5)
LONGEST_PAUSE = timedelta(days=1)
"""Pauses after an outage: the first, doubled with each further one up to the longest."""

VANISHED = "the run ended without a report: it was killed (out of memory?), or its machine stopped"

BatchState = Literal[
    "waiting_for_run",
    "running",
    "waiting_for_labels",
    "waiting_for_approval",
    "retried_after_outage",
    "set_aside",
    "done",
]


class Outage(BaseModel):
    """The last outages of a batch's runs, without another end of a run in between."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_in_row: int
    at: AwareDatetime
    not_before: AwareDatetime
    """The batch is not run again before."""
    error: str
    attempt: str = ""
    """Token of the attempt that met the last one. Empty in earlier records."""

    def is_pause(self, now: datetime) -> bool:
        """Whether the batch pauses now. A time ahead is of a wrong clock, and is no pause."""
        return self.at <= now < self.not_before


class SetAside(BaseModel):
    """That a batch is not run any more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: AwareDatetime
    num_attempts: int
    by: str | None = None
    """The person who rejected its labels; None if its runs failed."""
    reason: str | None = None


class Retry(BaseModel):
    """That a person put a batch back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    after_attempt: int
    """Attempts up to this number do not count."""


class RetrainingBatch(NamedTuple):
    """All records of a batch."""

    batch: Batch
    attempts: tuple[Attempt, ...] = ()
    """Oldest first. The last one without an error runs, or has vanished."""
    done: Success | None = None
    waiting: WaitingRun | None = None
    outage: Outage | None = None
    set_aside: SetAside | None = None
    retry: Retry | None = None
    audit: LabelAudit | None = None
    accepted: LabelAcceptance | None = None

    @property
    def is_held(self) -> bool:
        """Whether it waits for a person who looks at its labels."""
        found = self.audit is not None and self.audit.is_held
        return found and self.accepted is None and self.done is None

    @property
    def counted(self) -> tuple[Attempt, ...]:
        """The attempts that count against the batch."""
        after = self.retry.after_attempt if self.retry else 0
        return tuple(attempt for attempt in self.attempts if attempt.number > after)

    def state(self, *, is_retraining: bool) -> BatchState:
        """The one state of the batch. `is_retraining`: a retraining runs in this store now."""
        if self.done:
            return "done"
        if self.set_aside:
            return "set_aside"
        if is_retraining and self.attempts and self.attempts[-1].error is None:
            return "running"
        if self.is_held:
            return "waiting_for_labels"
        if self.waiting:
            return "waiting_for_approval"
        return "retried_after_outage" if self.outage else "waiting_for_run"


def read_records(store: Store) -> list[RetrainingBatch]:
    """The records of all batches, oldest first, from one listing."""
    keys = [info.key for info in store.list(f"{BATCHES}/")]
    by_batch = groupby(keys, lambda key: key.split("/")[2])
    found = (_record(store, list(of_batch)) for _, of_batch in by_batch)
    return [record for record in found if record is not None]


def _record(store: Store, keys: list[str]) -> RetrainingBatch | None:
    by_name = {key.rpartition("/")[2]: key for key in keys}
    if "batch.json" not in by_name:
        return None

    def one(name: str, kind: type[Record]) -> Record | None:
        return read_record(store, by_name[name], kind) if name in by_name else None

    attempts = [
        read_record(store, key, Attempt)
        for name, key in by_name.items()
        if name.startswith("attempt-")
    ]
    return RetrainingBatch(
        read_record(store, by_name["batch.json"], Batch),
        _by_number(attempts),
        one("done.json", Success),
        one("waiting.json", WaitingRun),
        one("outage.json", Outage),
        one("set-aside.json", SetAside),
        one("retry.json", Retry),
        one(AGREEMENT, LabelAudit),
        one(ACCEPTED, LabelAcceptance),
    )


def record_vanished(store: Store, record: RetrainingBatch, now: datetime) -> RetrainingBatch:
    """Close the attempts of dead runs. Only while no other retraining runs in this store.

    A run that was killed after it recorded its outage, or that it waits, or that its batch is held,
    does not count.
    """
    if record.done:
        return record
    for attempt in [attempt for attempt in record.attempts if attempt.error is None]:
        others = tuple(each for each in record.attempts if each != attempt)
        met_outage = record.outage is not None and _is_of(
            attempt, record.outage.attempt, record.outage.at, now
        )
        waits = record.waiting is not None and _is_of(
            attempt, record.waiting.attempt, record.waiting.since, now
        )
        if met_outage or waits or record.is_held:  # a batch that is held is not run
            take_back(store, record.batch, attempt)
            record = record._replace(attempts=others)
        else:
            record_failure(store, record.batch, attempt, VANISHED)
            failed = attempt.model_copy(update={"error": VANISHED})
            record = record._replace(attempts=_by_number([*others, failed]))
        if not met_outage:
            forget_outage(store, record.batch)
            record = record._replace(outage=None)
    return record


def _is_of(attempt: Attempt, token: str, at: datetime, now: datetime) -> bool:
    """Whether what was recorded is the end of this attempt. No clocks are compared, but for records
    of earlier versions."""
    return attempt.token == token if attempt.token else attempt.started_at <= at <= now


def _by_number(attempts: Iterable[Attempt]) -> tuple[Attempt, ...]:
    return tuple(sorted(attempts, key=lambda attempt: attempt.number))


def record_outage(
    store: Store, batch: Batch, attempt: Attempt, error: str, now: datetime
) -> Outage:
    """Record that a run met an outage. The attempt does not count."""
    earlier = [info.key for info in store.list(_key(batch, "outage.json"))]
    num_in_row = 1 + (read_record(store, earlier[0], Outage).num_in_row if earlier else 0)
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(num_in_row - 1, 30))
    outage = Outage(
        num_in_row=num_in_row, at=now, not_before=now + pause, error=error, attempt=attempt.token
    )
    store.write(_key(batch, "outage.json"), to_json(outage))
    take_back(store, batch, attempt)
    return outage


def forget_outage(store: Store, batch: Batch) -> None:
    """A run of the batch ended otherwise: the next outage is the first in a row."""
    store.delete(_key(batch, "outage.json"))


def record_set_aside(
    store: Store,
    record: RetrainingBatch,
    now: datetime,
    *,
    by: str | None = None,
    reason: str | None = None,
) -> None:
    """Record that a batch is not run any more: its runs failed, or a person rejects its labels."""
    set_aside = SetAside(since=now, num_attempts=len(record.counted), by=by, reason=reason)
    store.write(_key(record.batch, "set-aside.json"), to_json(set_aside))


def retry_batch(store: Store, number: int, now: datetime) -> RetrainingBatch:
    """Put a batch back that is set aside, waits or pauses: the next retraining runs it.

    A pause after an outage ends, and nothing else changes. A batch that is set aside or waits is
    run with the configuration of the next retraining, whatever run of it waits; its attempts are
    kept, and do not count any more. Raises InputError for any other batch.
    """
    record = find_record(store, number)
    if record.done or not (record.set_aside or record.waiting or record.outage):
        state = record.state(is_retraining=False).replace("_", " ")
        raise InputError(
            f"batch {number} is not set aside, does not wait for approval and does not pause after "
            f"an outage: it is {state}; see pvar batches"
        )
    pauses = record.outage is not None and record.outage.is_pause(now)
    if record.set_aside or (record.waiting and not pauses):
        retry = Retry(at=now, after_attempt=max((a.number for a in record.attempts), default=0))
        store.write(_key(record.batch, "retry.json"), to_json(retry))
        forget_waiting_run(store, record.batch)
    forget_outage(store, record.batch)
    store.delete(_key(record.batch, "set-aside.json"))  # last: a kill in between loses nothing
    return record


def find_record(store: Store, number: int) -> RetrainingBatch:
    """The records of one batch. Raises InputError if there is none."""
    records = read_records(store)
    record = next((record for record in records if record.batch.number == number), None)
    if record is None:
        known = f"its batches: 1 to {records[-1].batch.number}" if records else "it has none yet"
        raise InputError(f"{store.uri} has no batch {number}; {known}; see pvar batches")
    return record


def accept_labels(
    store: Store, number: int, *, by: str, reason: str, now: datetime
) -> LabelAcceptance:
    """Accept the labels of a held batch: the next retraining runs it, and they count as good.

    Raises InputError if the batch is not held.
    """
    _held_record(store, number)
    accepted = LabelAcceptance(at=now, by=by, reason=reason)
    if not store.create(f"{folder_of(number)}/{ACCEPTED}", to_json(accepted)):
        raise InputError(f"batch {number}: somebody else accepted its labels; see pvar batches")
    return accepted


def reject_labels(store: Store, number: int, *, by: str, reason: str, now: datetime) -> None:
    """Set a held batch aside: its rows are not trained on. Raises InputError if it is not held."""
    record_set_aside(store, _held_record(store, number), now, by=by, reason=reason)


def _held_record(store: Store, number: int) -> RetrainingBatch:
    record = find_record(store, number)
    if not record.is_held or record.set_aside:
        state = record.state(is_retraining=False).replace("_", " ")
        raise InputError(
            f"batch {number} is not held because of its labels: it is {state}; see pvar batches"
        )
    return record


def to_run(
    store: Store, records: Iterable[RetrainingBatch], *, max_attempts: int, now: datetime
) -> list[RetrainingBatch]:
    """The batches to run now, oldest first. Those with too many failed runs are set aside."""
    wanted = []
    for record in records:
        if record.done or record.set_aside or record.is_held:
            continue
        if len(record.counted) >= max_attempts:
            record_set_aside(store, record, now)
        elif record.outage is None or not record.outage.is_pause(now):
            wanted.append(record)
    return wanted


def _key(batch: Batch, name: str) -> str:
    return f"{folder_of(batch.number)}/{name}"
