"""A batch is in one state, and only what it can cause counts against it."""

import errno
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pvar.errors import InputError
from pvar.ports import Store
from pvar.retrain_decision import Batch
from tasks.retraining.batch_states import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    VANISHED,
    BatchState,
    RetrainingBatch,
    forget_outage,
    read_records,
    record_outage,
    record_vanished,
    retry_batch,
    to_run,
)
from tasks.retraining.batches import (
    begin_attempt,
    folder_of,
    record_failure,
    record_success,
    record_waiting_run,
    take_back,
    to_json,
)
from tasks.retraining.outage_notes import note_outage, record_noted_outages

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def make_batch(store: Store, number: int = 1) -> Batch:
    batch = Batch(
        number=number, created_at=NOW, data="retrain/data/x", files=(), duplicates=(), reasons=()
    )
    store.write(f"{folder_of(number)}/batch.json", to_json(batch))
    return batch


def fail(store: Store, batch: Batch, times: int = 1) -> None:
    for _ in range(times):
        record_failure(store, batch, begin_attempt(store, batch, NOW), "InputError: no prompts")


def meet_outage(store: Store, batch: Batch, at: datetime = NOW) -> datetime:
    attempt = begin_attempt(store, batch, at)
    return record_outage(store, batch, attempt, "TrackingError: gone", at).not_before


def numbers(store: Store, now: datetime = NOW, max_attempts: int = 3) -> list[int]:
    """The batches that a retraining at that time runs."""
    records = [record_vanished(store, record, now) for record in read_records(store)]
    return [
        each.batch.number for each in to_run(store, records, max_attempts=max_attempts, now=now)
    ]


def notes(home: Path) -> list[Path]:
    return list((home / "retrain").rglob("*.json"))


def the_record(store: Store) -> RetrainingBatch:
    (record,) = read_records(store)
    return record


def state(store: Store, *, is_retraining: bool = False) -> BatchState:
    return the_record(store).state(is_retraining=is_retraining)


def test_outages_in_any_number_never_set_a_batch_aside(file_store: Store) -> None:
    batch = make_batch(file_store)
    now = NOW
    for _ in range(10):
        now = meet_outage(file_store, batch, now)
        assert numbers(file_store, now) == [1]
    assert the_record(file_store).counted == ()
    assert state(file_store) == "retried_after_outage"


def test_the_pause_doubles_up_to_a_day_and_ends_by_itself(file_store: Store) -> None:
    batch = make_batch(file_store)
    pauses = [meet_outage(file_store, batch) - NOW for _ in range(12)]
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE  # 5 min · 2^11 would be a week
    assert numbers(file_store, NOW + LONGEST_PAUSE - timedelta(seconds=1)) == []
    assert numbers(file_store, NOW + LONGEST_PAUSE) == [1]


def test_after_another_end_of_a_run_the_next_outage_is_the_first(file_store: Store) -> None:
    batch = make_batch(file_store)
    meet_outage(file_store, batch)
    meet_outage(file_store, batch)
    fail(file_store, batch)
    forget_outage(file_store, batch)
    assert state(file_store) == "waiting_for_run"
    assert meet_outage(file_store, batch) - NOW == FIRST_PAUSE


def test_failed_and_vanished_runs_set_a_batch_aside(file_store: Store) -> None:
    batch = make_batch(file_store)
    fail(file_store, batch)
    begin_attempt(file_store, batch, NOW)  # and here it was killed
    assert numbers(file_store) == [1]
    assert [a.error for a in the_record(file_store).attempts][1] == VANISHED
    fail(file_store, batch)
    make_batch(file_store, 2)
    assert numbers(file_store) == [2]
    assert [each.state(is_retraining=False) for each in read_records(file_store)] == [
        "set_aside",
        "waiting_for_run",
    ]
    # Set aside is a fact, whatever bound a later retraining has.
    assert numbers(file_store, max_attempts=9) == [2]


def test_a_batch_that_is_put_back_has_all_its_attempts_again(file_store: Store) -> None:
    batch = make_batch(file_store)
    fail(file_store, batch, times=3)
    assert numbers(file_store) == []
    retry_batch(file_store, 1, NOW)
    assert state(file_store) == "waiting_for_run"
    assert numbers(file_store) == [1]
    fail(file_store, batch, times=2)
    assert numbers(file_store) == [1]
    fail(file_store, batch)
    assert numbers(file_store) == []
    assert len(the_record(file_store).attempts) == 6  # kept


def test_a_batch_that_pauses_is_run_at_once_when_put_back(file_store: Store) -> None:
    batch = make_batch(file_store)
    fail(file_store, batch)
    meet_outage(file_store, batch)
    assert numbers(file_store) == []
    retry_batch(file_store, 1, NOW)
    assert numbers(file_store) == [1]
    assert len(the_record(file_store).counted) == 1  # the failure still counts


def wait(store: Store, batch: Batch, at: datetime = NOW) -> None:
    record_waiting_run(store, batch, begin_attempt(store, batch, at), "20260310-1", at)


def test_a_run_that_was_killed_while_its_outage_was_recorded_does_not_count(
    file_store: Store,
) -> None:
    batch = make_batch(file_store)
    attempt = begin_attempt(file_store, batch, NOW)
    record_outage(file_store, batch, attempt, "the process was ended", LATER)
    file_store.write(f"{folder_of(1)}/attempt-1.json", to_json(attempt))  # not yet deleted
    assert numbers(file_store, LATER) == []
    assert the_record(file_store).attempts == ()
    assert numbers(file_store, LATER + FIRST_PAUSE) == [1]


def test_a_run_that_was_killed_while_its_wait_was_recorded_does_not_count(
    file_store: Store,
) -> None:
    batch = make_batch(file_store)
    meet_outage(file_store, batch, NOW - timedelta(days=1))
    attempt = begin_attempt(file_store, batch, NOW)
    record_waiting_run(file_store, batch, attempt, "20260310-1", LATER)
    file_store.write(f"{folder_of(1)}/attempt-1.json", to_json(attempt))
    assert numbers(file_store, LATER) == [1]
    record = the_record(file_store)
    assert (record.attempts, record.outage) == ((), None)
    assert state(file_store) == "waiting_for_approval"


@pytest.mark.parametrize("before", [meet_outage, wait])
def test_a_run_that_vanished_counts_whatever_was_before_it(
    file_store: Store, before: Callable[[Store, Batch], object]
) -> None:
    batch = make_batch(file_store)
    before(file_store, batch)
    begin_attempt(file_store, batch, LATER)
    assert numbers(file_store, LATER) == [1]
    record = the_record(file_store)
    assert [attempt.error for attempt in record.counted] == [VANISHED]
    assert record.outage is None  # the next one is the first in a row


@pytest.mark.parametrize("before", [meet_outage, wait])
def test_a_record_of_a_clock_that_was_ahead_neither_pauses_nor_excuses(
    file_store: Store, before: Callable[[Store, Batch, datetime], object]
) -> None:
    batch = make_batch(file_store)
    before(file_store, batch, NOW + timedelta(days=900))
    for _ in range(3):
        assert numbers(file_store) == [1]
        begin_attempt(file_store, batch, NOW)  # and here it was killed
    assert numbers(file_store) == []
    assert state(file_store) == "set_aside"


def test_a_batch_that_waits_is_run_anew_when_put_back(file_store: Store) -> None:
    batch = make_batch(file_store)
    fail(file_store, batch)
    wait(file_store, batch)
    retry_batch(file_store, 1, NOW)
    record = the_record(file_store)
    assert (record.waiting, record.counted, len(record.attempts)) == (None, (), 1)
    assert state(file_store) == "waiting_for_run"


def test_a_batch_that_is_set_aside_with_a_waiting_run_is_run_anew_when_put_back(
    file_store: Store,
) -> None:
    batch = make_batch(file_store)
    wait(file_store, batch)
    fail(file_store, batch, times=3)  # its approval is of an earlier champion
    assert numbers(file_store) == []
    retry_batch(file_store, 1, NOW)
    assert the_record(file_store).waiting is None
    assert numbers(file_store) == [1]


def test_the_end_of_a_pause_keeps_the_run_that_waits(file_store: Store) -> None:
    batch = make_batch(file_store)
    wait(file_store, batch)
    meet_outage(file_store, batch)
    retry_batch(file_store, 1, NOW)
    record = the_record(file_store)
    assert record.outage is None
    assert record.waiting is not None


def test_only_what_does_not_run_by_itself_can_be_put_back(file_store: Store) -> None:
    with pytest.raises(InputError, match=r"has no batch 1; it has none yet; see pvar batches"):
        retry_batch(file_store, 1, NOW)
    batch = make_batch(file_store)
    with pytest.raises(InputError, match=r"has no batch 2; its batches: 1 to 1"):
        retry_batch(file_store, 2, NOW)
    with pytest.raises(InputError, match="it is waiting for run"):
        retry_batch(file_store, 1, NOW)
    meet_outage(file_store, batch)
    record_success(file_store, batch, "20260310-1", NOW)
    with pytest.raises(InputError, match="it is done"):
        retry_batch(file_store, 1, NOW)


def test_each_end_of_a_run_leads_to_one_state(file_store: Store) -> None:
    batch = make_batch(file_store)
    assert state(file_store) == "waiting_for_run"
    attempt = begin_attempt(file_store, batch, NOW)
    assert state(file_store, is_retraining=True) == "running"
    assert state(file_store, is_retraining=False) == "waiting_for_run"  # its process is gone
    take_back(file_store, batch, attempt)  # by a person
    assert state(file_store, is_retraining=True) == "waiting_for_run"
    meet_outage(file_store, batch)
    assert state(file_store) == "retried_after_outage"
    resumed = begin_attempt(file_store, batch, NOW)
    assert state(file_store, is_retraining=True) == "running"
    record_waiting_run(file_store, batch, resumed, "20260310-1", NOW)
    assert state(file_store) == "waiting_for_approval"
    record_success(file_store, batch, "20260310-1", NOW)
    assert state(file_store, is_retraining=True) == "done"


def test_an_outage_of_the_store_itself_is_recorded_when_it_is_back(
    file_store: Store, tmp_path: Path
) -> None:
    batch = make_batch(file_store)
    attempt = begin_attempt(file_store, batch, NOW)
    note_outage(tmp_path, file_store, batch, attempt, "StoreError: gone", NOW)
    (record,) = record_noted_outages(tmp_path, file_store)
    assert record.attempts == ()
    assert record.outage is not None
    assert (record.outage.error, record.outage.at) == ("StoreError: gone", NOW)
    (again,) = record_noted_outages(tmp_path, file_store)
    assert again.outage is not None
    assert again.outage.num_in_row == 1


@pytest.mark.parametrize("content", [b"", b'{"batch": 1', b"\xff"])
def test_a_note_that_cannot_be_read_is_deleted_and_the_others_are_recorded(
    file_store: Store, tmp_path: Path, content: bytes
) -> None:
    batch = make_batch(file_store)
    note_outage(tmp_path, file_store, batch, begin_attempt(file_store, batch, NOW), "gone", NOW)
    (path,) = notes(tmp_path)
    path.with_name("000000-1.json").write_bytes(content)
    (record,) = record_noted_outages(tmp_path, file_store)
    assert record.outage is not None
    assert notes(tmp_path) == []


def test_a_note_is_whole_or_not_there(
    file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    batch = make_batch(file_store)
    attempt = begin_attempt(file_store, batch, NOW)
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        note_outage(tmp_path, file_store, batch, attempt, "gone", NOW)
    assert notes(tmp_path) == []
    assert len(record_noted_outages(tmp_path, file_store)[0].attempts) == 1


def test_a_note_about_an_attempt_that_ended_otherwise_changes_nothing(
    file_store: Store, tmp_path: Path
) -> None:
    batch = make_batch(file_store)
    attempt = begin_attempt(file_store, batch, NOW)
    record_failure(file_store, batch, attempt, "InputError: no prompts")
    note_outage(tmp_path, file_store, batch, attempt, "StoreError: gone", NOW)
    (record,) = record_noted_outages(tmp_path, file_store)
    assert record.outage is None
    assert len(record.counted) == 1
