"""One of many holds a lease, and nobody waits longer than needed for a dead one."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from pvar.errors import LeaseError
from pvar.ports import Store
from tasks.engine.lease import Holder, LeaseRecord, hold, this_process, try_acquire
from tests.services.processes import NEVER_SECONDS, wait_until

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

ELSEWHERE = this_process().model_copy(update={"host": "another-machine", "boot_id": "other"})
"""A holder whose life cannot be seen from here: only its clock counts."""


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


def record(store: Store, key: str) -> LeaseRecord:
    return LeaseRecord.model_validate_json(store.read(key))


def test_a_lease_has_one_holder_until_it_is_released(file_store: Store) -> None:
    with hold(file_store, "shard/7"):
        assert try_acquire(file_store, "shard/7") is None
        assert try_acquire(file_store, "shard/8") is not None
        with pytest.raises(LeaseError, match=f"shard/7 is held by process {os.getpid()} on"):
            hold(file_store, "shard/7")
    lease = try_acquire(file_store, "shard/7")
    assert lease is not None
    assert lease.epoch == 2


def test_an_exception_releases_it_too(file_store: Store) -> None:
    with pytest.raises(ZeroDivisionError), hold(file_store, "shard"):
        _ = 1 / 0
    assert try_acquire(file_store, "shard") is not None


def test_it_expires_after_the_time_to_live_and_not_before(file_store: Store) -> None:
    clock = Clock()
    assert try_acquire(file_store, "shard", ttl_seconds=60, now=clock, holder=ELSEWHERE)
    clock.pass_seconds(59.9)
    assert try_acquire(file_store, "shard", now=clock) is None
    clock.pass_seconds(0.1)
    taken = try_acquire(file_store, "shard", now=clock)
    assert taken is not None
    assert taken.epoch == 2


def test_renewing_counts_from_now(file_store: Store) -> None:
    clock = Clock()
    lease = try_acquire(file_store, "shard", ttl_seconds=60, now=clock, holder=ELSEWHERE)
    assert lease is not None
    clock.pass_seconds(45)
    lease.renew()
    clock.pass_seconds(45)  # 90 s after it was taken, 45 s after it was renewed
    assert try_acquire(file_store, "shard", now=clock) is None


def test_who_was_too_late_is_told_and_does_not_disturb(file_store: Store) -> None:
    clock = Clock()
    late = try_acquire(file_store, "shard", ttl_seconds=60, now=clock, holder=ELSEWHERE)
    assert late is not None
    late.check()
    clock.pass_seconds(61)
    taken = try_acquire(file_store, "shard", now=clock)
    assert taken is not None
    with pytest.raises(LeaseError, match=r"epoch 2 after 1.*within 60 s"):
        late.renew()
    assert late.lost
    late.release()
    taken.check()
    assert not taken.lost
    assert try_acquire(file_store, "shard", now=clock) is None


def test_a_late_holder_whom_nobody_followed_goes_on(file_store: Store) -> None:
    clock = Clock()
    lease = try_acquire(file_store, "shard", ttl_seconds=60, now=clock, holder=ELSEWHERE)
    assert lease is not None
    clock.pass_seconds(1000)
    lease.renew()
    assert try_acquire(file_store, "shard", now=clock) is None


def test_the_context_renews_by_itself_and_stops(file_store: Store) -> None:
    threads = threading.active_count()
    with hold(file_store, "shard", ttl_seconds=0.4) as lease:
        first = record(file_store, "shard/000001.json").expires_at
        enough = first + timedelta(seconds=1)
        wait_until(
            lambda: record(file_store, "shard/000001.json").expires_at >= enough,
            "three renewals",
            pause_seconds=0.05,
        )
        assert not lease.lost
    assert threading.active_count() == threads
    assert record(file_store, "shard/000001.json").is_released


class SlowStore:
    """A store whose first write comes late; the rest is the other store's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.began, self.may_end, self.ended = (threading.Event() for _ in range(3))

    def write(self, key: str, data: bytes) -> None:
        if self.began.is_set():
            return self._store.write(key, data)
        self.began.set()
        assert self.may_end.wait(NEVER_SECONDS)
        self._store.write(key, data)
        return self.ended.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_late_renewal_does_not_undo_the_release(file_store: Store) -> None:
    slow = SlowStore(file_store)
    with hold(cast(Store, slow), "shard", ttl_seconds=0.4):
        assert slow.began.wait(NEVER_SECONDS)  # the renewal is on its way
        threading.Timer(0.3, slow.may_end.set).start()
    assert slow.ended.wait(NEVER_SECONDS)
    assert record(file_store, "shard/000001.json").is_released


def test_the_context_notices_a_newer_holder(file_store: Store) -> None:
    with hold(file_store, "shard", ttl_seconds=0.4) as lease:
        file_store.write("shard/000002.json", file_store.read("shard/000001.json"))
        wait_until(lambda: lease.lost, "the look at the newer holder", pause_seconds=0.05)
        with pytest.raises(LeaseError, match="let the other run finish"):
            lease.check()


def test_sixteen_who_see_it_expired_agree_on_one(file_store: Store) -> None:
    clock = Clock()
    assert try_acquire(file_store, "shard", ttl_seconds=60, now=clock, holder=ELSEWHERE)
    clock.pass_seconds(61)
    barrier = threading.Barrier(16)

    def race(_: int) -> bool:
        barrier.wait()
        return try_acquire(file_store, "shard", now=clock) is not None

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(race, range(16))) == 1


def test_what_is_no_lease_is_named(file_store: Store) -> None:
    file_store.write("shard/000003.json", b'{"holder": 1}')
    with pytest.raises(LeaseError, match=r"shard/000003\.json is not a valid lease"):
        try_acquire(file_store, "shard")


# A process takes the lease, says so, and works until it is killed.
_HOLD = """
import sys, time
from infra.store import open_store
from tasks.engine.lease import hold
with hold(open_store(sys.argv[1]), "shard", ttl_seconds=3600):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holding_process(store: Store) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", _HOLD, store.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_killed_holder_on_this_machine_is_followed_at_once(file_store: Store) -> None:
    with holding_process(file_store) as process:
        assert try_acquire(file_store, "shard") is None
        process.send_signal(signal.SIGKILL)
        # Not waited for: until its parent reads the exit code it is a zombie with its pid.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        lease = try_acquire(file_store, "shard")
        assert lease is not None
        assert lease.epoch == 2


def test_a_killed_and_buried_holder_is_followed_too(file_store: Store) -> None:
    with holding_process(file_store) as process:
        process.kill()
        process.wait()
        assert try_acquire(file_store, "shard") is not None


@pytest.mark.parametrize(
    "change",
    [
        {"host": "another-machine"},
        {"boot_id": "another-start"},
        {"pid_namespace": "pid:[another-container]"},
        {"boot_id": ""},
    ],
)
def test_a_holder_that_cannot_be_seen_is_not_called_dead(
    file_store: Store, change: dict[str, str]
) -> None:
    # Process 2**22 is above Linux's highest number: here it would be dead.
    gone = this_process().model_copy(update={"pid": 2**22 + 1})
    assert try_acquire(file_store, "here", holder=gone)
    assert try_acquire(file_store, "here") is not None
    assert try_acquire(file_store, "there", holder=gone.model_copy(update=change))
    assert try_acquire(file_store, "there") is None


def test_a_number_used_again_is_not_the_holder(file_store: Store) -> None:
    me = this_process()
    before = Holder(**me.model_dump() | {"started_ticks": me.started_ticks - 1})
    assert try_acquire(file_store, "shard", holder=before)
    assert try_acquire(file_store, "shard") is not None


# A process waits for the start signal on its input, tries once, and says whether it won.
_RACE = """
import sys
from infra.store import open_store
from tasks.engine.lease import try_acquire
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
lease = try_acquire(store, "shard")
print(lease is not None, flush=True)
sys.stdin.readline()
"""


def test_of_two_processes_one_wins(file_store: Store) -> None:
    command = [sys.executable, "-c", _RACE, file_store.uri]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("\n")
            racer.stdin.flush()
        won = [racer.stdout.readline() for racer in racers if racer.stdout]
        assert sorted(won) == ["False\n", "True\n"]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
