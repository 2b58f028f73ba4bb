"""Leases on any store, so that only one of several concurrent runs does the same work.

    {prefix}/000001.json     {holder, expires_at, is_released}
    {prefix}/000002.json     the next holder's; the highest number is current

A process takes a lease by putting the next number if absent (`Store.create`), once the newest lease
is released, expired, or its holder is known to be dead. The holder renews `expires_at` (its
heartbeat) and releases the lease by overwriting its own object. After `kill -9` another process
takes over within the time to live, or immediately on the same machine, because the lease records
the holder's process.

A lease only avoids duplicate work. Artifacts are correct without it, because manifests are put if
absent. So clocks of machines may differ by less than the time to live, and a holder that was
suspended for longer may have lost its lease (`Lease.check`). Objects of past holders (a few hundred
bytes each) are kept, because numbers must not recur.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from pvar.errors import LeaseError, StoreError
from pvar.ports import Store

_log = logging.getLogger(__name__)

TTL_SECONDS = 60.0
"""Time to live, long enough for clock differences and pauses of a busy machine."""

_RENEWALS_PER_TTL = 4

Clock = Callable[[], datetime]
"""Returns the current time, timezone-aware."""


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


class Holder(BaseModel):
    """The process that holds a lease, so that others on the same machine see if it is alive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    boot_id: str
    """Linux's id of the current boot; empty if there is none."""
    pid_namespace: str
    """Process id namespace, which differs between containers on one machine."""
    pid: int
    started_ticks: int
    """Start of the process in clock ticks after boot, because process ids are reused."""


class LeaseRecord(BaseModel):
    """The stored object of one holder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    holder: Holder
    expires_at: AwareDatetime
    is_released: bool = False


class _Newest(NamedTuple):
    epoch: int
    record: LeaseRecord


class Lease:
    """A lease that this process holds. As a context manager, it is renewed until the body ends.

    Leaving the body releases it, also by an exception, so that the next run can take it.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        epoch: int,
        *,
        holder: Holder,
        ttl_seconds: float,
        now: Clock,
    ) -> None:
        self.prefix = prefix
        self.epoch = epoch
        self._store = store
        self._holder = holder
        self._ttl = timedelta(seconds=ttl_seconds)
        self._now = now
        self._is_lost = False
        self._is_over = threading.Event()
        self._renewer = threading.Thread(target=self._renew_until_over, daemon=True)

    @property
    def lost(self) -> bool:
        """Whether the last check of the store saw a newer holder."""
        return self._is_lost

    def check(self) -> None:
        """Check the store now; LeaseError if another process took the lease over."""
        newest = _newest_epoch(self._store, self.prefix)
        if newest is not None and newest > self.epoch:
            self._is_lost = True
            raise LeaseError(
                f"{self._store.uri}/{self.prefix}: another process took over the lease (epoch "
                f"{newest} after {self.epoch}), because this process did not renew it within "
                f"{self._ttl.total_seconds():.0f} s; let the other run finish, or raise "
                "runtime.lease_seconds"
            )

    def renew(self) -> None:
        """Renew the lease; LeaseError if another process took it over."""
        self.check()
        self._put(LeaseRecord(holder=self._holder, expires_at=self._now() + self._ttl))

    def release(self) -> None:
        """Release the lease. No effect if another process already took it over."""
        now = self._now()
        self._put(LeaseRecord(holder=self._holder, expires_at=now, is_released=True))

    def __enter__(self) -> Self:
        self._renewer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._renewer.join()  # a renewal after the release would undo it
        try:
            self.release()
        except StoreError as failure:  # it expires by itself; the body's outcome counts
            _log.warning("could not release %s: %s", self.prefix, failure)

    def _renew_until_over(self) -> None:
        while not self._is_over.wait(self._ttl.total_seconds() / _RENEWALS_PER_TTL):
            try:
                self.renew()
            except LeaseError as failure:
                _log.warning("%s", failure)
                return
            except StoreError as failure:  # the next attempt may come in time
                _log.warning("could not renew %s: %s", self.prefix, failure)

    def _put(self, record: LeaseRecord) -> None:
        self._store.write(_key(self.prefix, self.epoch), record.model_dump_json().encode())


def try_acquire(
    store: Store,
    prefix: str,
    *,
    ttl_seconds: float = TTL_SECONDS,
    now: Clock = utc_now,
    holder: Holder | None = None,
) -> Lease | None:
    """Take the lease under `prefix`; None if a live process holds it."""
    newest = _newest(store, prefix)
    if newest and not _is_free(newest.record, now()):
        return None
    epoch = newest.epoch + 1 if newest else 1
    holder = holder or this_process()
    record = LeaseRecord(holder=holder, expires_at=now() + timedelta(seconds=ttl_seconds))
    if not store.create(_key(prefix, epoch), record.model_dump_json().encode()):
        return None  # another was quicker
    if newest and not newest.record.is_released:
        _log.info("took %s over from process %d", prefix, newest.record.holder.pid)
    return Lease(store, prefix, epoch, holder=holder, ttl_seconds=ttl_seconds, now=now)


def hold(
    store: Store,
    prefix: str,
    *,
    ttl_seconds: float = TTL_SECONDS,
    now: Clock = utc_now,
    holder: Holder | None = None,
) -> Lease:
    """Take the lease, for a `with` statement; LeaseError if a live process holds it."""
    lease = try_acquire(store, prefix, ttl_seconds=ttl_seconds, now=now, holder=holder)
    if lease is None:
        raise LeaseError(f"{store.uri}/{prefix} {_held_by(_newest(store, prefix))}")
    return lease


def is_held(store: Store, prefix: str, *, now: Clock = utc_now) -> bool:
    """Whether a process holds the lease, as far as can be known from here."""
    newest = _newest(store, prefix)
    return newest is not None and not _is_free(newest.record, now())


def this_process() -> Holder:
    """This process as a holder."""
    return Holder(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        started_ticks=_started_ticks(os.getpid()) or 0,
    )


def _is_free(record: LeaseRecord, now: datetime) -> bool:
    return record.is_released or record.expires_at <= now or _is_dead(record.holder)


def _is_dead(holder: Holder) -> bool:
    """Whether the holder ran on this machine and has ended; False if unknown."""
    ran_here = (holder.host, holder.boot_id, holder.pid_namespace) == (
        socket.gethostname(),
        _boot_id(),
        _pid_namespace(),
    )
    return ran_here and holder.boot_id != "" and _started_ticks(holder.pid) != holder.started_ticks


def _started_ticks(pid: int) -> int | None:
    """When the process started; None if it does not exist or is a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): "pid (name) state …", the start is field 22; the name may hold anything.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[22 - 3])


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _pid_namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _key(prefix: str, epoch: int) -> str:
    return f"{prefix}/{epoch:06d}.json"


def _newest_epoch(store: Store, prefix: str) -> int | None:
    keys = [info.key for info in store.list(f"{prefix}/")]
    return int(keys[-1].removeprefix(f"{prefix}/").removesuffix(".json")) if keys else None


def _newest(store: Store, prefix: str) -> _Newest | None:
    epoch = _newest_epoch(store, prefix)
    if epoch is None:
        return None
    key = _key(prefix, epoch)
    try:
        return _Newest(epoch, LeaseRecord.model_validate_json(store.read(key)))
    except ValidationError as error:
        raise LeaseError(
            f"{store.uri}/{key} is not a valid lease ({error.error_count()} faults); delete it if "
            "no other version of pvar uses this store"
        ) from error


def _held_by(newest: _Newest | None) -> str:
    if newest is None:
        return "is held by another process; try again"
    holder = newest.record.holder
    return (
        f"is held by process {holder.pid} on {holder.host} until "
        f"{newest.record.expires_at:%H:%M:%S} UTC, and renewed while that process runs; "
        "wait for it, or end it"
    )
