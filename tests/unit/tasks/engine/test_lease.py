"""One of many holds a lease, and nobody waits longer than needed for a dead one."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import pytest

from pvar.errors import LeaseError
from pvar.ports import Store
from tasks.engine.lease import (
    Lease,
    LeaseRecord,
    LeaseWatch,
    hold,
    is_claimed,
    is_held,
    try_acquire,
)
from tasks.engine.lease_holder import Holder, this_process
from tests.lease_time import ELSEWHERE, LeaseTime, stepped_time
from tests.services.processes import NEVER_SECONDS, wait_until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> LeaseTime:
    return stepped_time(monkeypatch)


def watched(
    store: Store, watch: LeaseWatch, clock: LeaseTime, seconds: float, prefix: str = "shard"
) -> list[Lease]:
    """Tries to take the lease every 5 seconds, so long; the lease if it was taken."""
    for _ in range(round(seconds / 5)):
        clock.seconds += 5
        lease = try_acquire(store, prefix, ttl_seconds=60, watch=watch)
        if lease is not None:
            return [lease]
    return []


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


def test_who_does_not_move_is_followed_after_the_time_to_live_and_not_before(
    file_store: Store, clock: LeaseTime
) -> None:
    assert try_acquire(file_store, "shard", ttl_seconds=60, holder=ELSEWHERE)
    clock.seconds += 3600  # that it is old is not known: nobody watched it
    watch = LeaseWatch()
    assert try_acquire(file_store, "shard", watch=watch) is None
    assert not watched(file_store, watch, clock, 55)
    [taken] = watched(file_store, watch, clock, 5)
    assert taken.epoch == 2


def test_the_holder_says_how_long_it_lives(file_store: Store, clock: LeaseTime) -> None:
    assert try_acquire(file_store, "shard", ttl_seconds=300, holder=ELSEWHERE)
    watch = LeaseWatch()
    assert try_acquire(file_store, "shard", ttl_seconds=60, watch=watch) is None
    assert not watched(file_store, watch, clock, 295)
    assert watched(file_store, watch, clock, 5)


def test_a_counter_that_moves_is_alive(file_store: Store, clock: LeaseTime) -> None:
    lease = try_acquire(file_store, "shard", ttl_seconds=60, holder=ELSEWHERE)
    assert lease is not None
    watch = LeaseWatch()
    for _ in range(5):
        assert not watched(file_store, watch, clock, 45)
        lease.renew()
    assert not watched(file_store, watch, clock, 60)  # 55 s after the last move was seen
    assert watched(file_store, watch, clock, 5)


def test_a_pause_of_the_observer_is_no_silence_of_the_holder(
    file_store: Store, clock: LeaseTime
) -> None:
    # Both processes were stopped for an hour, and the observer goes on first.
    lease = try_acquire(file_store, "shard", ttl_seconds=60, holder=ELSEWHERE)
    assert lease is not None
    watch = LeaseWatch()
    assert try_acquire(file_store, "shard", watch=watch) is None
    clock.seconds += 3600
    assert try_acquire(file_store, "shard", watch=watch) is None
    lease.renew()
    assert not watched(file_store, watch, clock, 55)


# Written by pvar before leases had a counter; the clock of its machine was three hours ahead.
_EARLIER = """{"holder":{"host":"another-machine","boot_id":"other","pid_namespace":"1",
"pid":7,
"started_ticks":9},"expires_at":"2999-01-01T15:01:00Z","is_released":false}"""


def test_a_lease_of_an_earlier_version_is_one_whose_counter_stands(
    file_store: Store, clock: LeaseTime
) -> None:
    file_store.write("shard/000004.json", _EARLIER.encode())
    watch = LeaseWatch()
    assert try_acquire(file_store, "shard", watch=watch) is None
    assert not watched(file_store, watch, clock, 55)
    # A worker of that version is alive: it renews the time instead.
    file_store.write("shard/000004.json", _EARLIER.replace("15:01", "15:02").encode())
    assert not watched(file_store, watch, clock, 60)
    [taken] = watched(file_store, watch, clock, 5)
    assert taken.epoch == 5
    file_store.write("released/000001.json", _EARLIER.replace("false", "true").encode())
    assert try_acquire(file_store, "released") is not None


def test_who_was_too_late_is_told_and_does_not_disturb(file_store: Store, clock: LeaseTime) -> None:
    late = try_acquire(file_store, "shard", ttl_seconds=60, holder=ELSEWHERE)
    assert late is not None
    late.check()
    watch = LeaseWatch()
    [taken] = watched(file_store, watch, clock, 65)
    before = file_store.read("shard/000002.json")
    with pytest.raises(LeaseError, match=r"epoch 2 after 1.*within 60 s"):
        late.renew()
    assert late.lost
    late.release()
    taken.check()
    assert not taken.lost
    assert file_store.read("shard/000002.json") == before
    assert try_acquire(file_store, "shard") is None


def test_a_late_holder_whom_nobody_followed_goes_on(file_store: Store, clock: LeaseTime) -> None:
    lease = try_acquire(file_store, "shard", ttl_seconds=60, holder=ELSEWHERE)
    assert lease is not None
    clock.seconds += 1000
    lease.renew()
    assert not watched(file_store, LeaseWatch(), clock, 60)


def test_to_hold_it_a_dead_holder_is_watched_for_its_time_to_live(
    file_store: Store, clock: LeaseTime
) -> None:
    assert try_acquire(file_store, "shard", ttl_seconds=60, holder=ELSEWHERE)
    began = clock.seconds
    assert is_claimed(file_store, "shard")  # one look: it may be alive
    assert clock.seconds == began
    assert not is_held(file_store, "shard")
    assert 60 <= clock.seconds - began < 62
    began = clock.seconds
    assert hold(file_store, "shard").epoch == 2
    assert 60 <= clock.seconds - began < 62


def test_to_hold_it_a_live_holder_is_watched_until_it_moves(
    file_store: Store, clock: LeaseTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = try_acquire(file_store, "shard", ttl_seconds=60, holder=ELSEWHERE)
    assert lease is not None
    began = clock.seconds

    def sleep(seconds: float) -> None:
        clock.seconds += seconds
        if clock.seconds >= began + 15:
            lease.renew()

    monkeypatch.setattr(clock, "sleep", sleep)
    with pytest.raises(LeaseError, match="on another-machine, which renews it"):
        hold(file_store, "shard")
    assert clock.seconds - began < 17


def test_a_put_that_is_repeated_is_ours(file_store: Store) -> None:
    class Repeating(SlowStore):
        """Its answers get lost, and the client puts again."""

        def create(self, key: str, data: bytes) -> bool:
            file_store.create(key, data)
            return file_store.create(key, data)

    store = cast(Store, Repeating(file_store))
    assert try_acquire(store, "shard") is not None
    assert try_acquire(store, "shard") is None


def test_the_context_renews_by_itself_and_stops(file_store: Store) -> None:
    threads = threading.active_count()
    with hold(file_store, "shard", ttl_seconds=0.4) as lease:
        wait_until(
            lambda: record(file_store, "shard/000001.json").counter >= 3,
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


def test_sixteen_who_see_it_dead_agree_on_one(file_store: Store, clock: LeaseTime) -> None:
    assert try_acquire(file_store, "shard", ttl_seconds=60, holder=ELSEWHERE)
    watches = [LeaseWatch() for _ in range(16)]
    for _ in range(5):  # the last look is at 60 s
        for watch in watches:
            watch.look(file_store, "shard")
        clock.seconds += 15
    barrier = threading.Barrier(16)

    def race(watch: LeaseWatch) -> bool:
        barrier.wait()
        return try_acquire(file_store, "shard", watch=watch) is not None

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(race, watches)) == 1


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
