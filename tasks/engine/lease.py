"""Leases on any store, so that only one of several concurrent runs does the same work.

    {prefix}/000001.json     {holder, token, counter, ttl_seconds, is_released}
    {prefix}/000002.json     the next holder's; the highest number is current

A process takes a lease by putting the next number if absent (`Store.create`), once the newest lease
is released or its holder is presumed dead. The holder moves the counter in its own object (its
heartbeat), and releases the lease by overwriting that object. No other process writes it, so nobody
can renew or release the lease of another. The token tells a holder that its put succeeded although
the answer says otherwise.

No time of day is compared. A holder is presumed dead when its object has not changed for its time
to live while this process watched it, on this process's monotonic clock (`LeaseWatch`). So after
`kill -9` another process takes over after the time to live, or immediately on the same machine,
because the lease records the holder's process.

A lease only avoids duplicate work. Artifacts are correct without it, because records and manifests
are put if absent. A holder that was suspended for longer than its time to live may have lost its
lease (`Lease.check`). Objects of past holders (a few hundred bytes each) are kept, because numbers
must not recur.
"""

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from pvar.errors import LeaseError, NotFoundError, StoreError
from pvar.ports import ObjectInfo, Store
from tasks.engine.lease_holder import Holder, is_dead, ran_here, this_process

_log = logging.getLogger(__name__)

TTL_SECONDS = 60.0
"""Time to live, long enough for pauses of a busy machine."""

_RENEWALS_PER_TTL = 4

_LOOK_SECONDS = 1.0
"""Pause between two looks at a lease that is watched."""


class LeaseRecord(BaseModel):
    """The stored object of one holder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    holder: Holder
    token: str = ""
    """A random name of this holding of the lease."""
    counter: int = 0
    """Increased by the holder while it works."""
    ttl_seconds: float = TTL_SECONDS
    """The holder is presumed dead when the object has not changed for this long."""
    is_released: bool = False
    expires_at: AwareDatetime | None = None
    """Of earlier versions, which renewed it instead of a counter. It is compared with no clock."""

    def to_json(self) -> bytes:
        """The record as it is stored."""
        return self.model_dump_json(exclude_none=True).encode()


class LeaseListing(NamedTuple):
    """The newest object of each lease below a folder, by prefix, from one listing."""

    newest: Mapping[str, ObjectInfo]
    began_at: float
    """On the clock of the watch; −∞ if unknown. Until then an unchanged holder was silent."""


@dataclass(frozen=True)
class Sighting:
    """The newest record of a lease, and what is known about its holder."""

    key: str
    version: str
    """Version of the object in the listing before the record was read."""
    record: LeaseRecord
    at: float
    unmoved_seconds: float = 0.0
    """How long the object was seen unchanged."""
    has_moved: bool = False
    """Whether it changed while it was watched: then somebody is alive."""

    @property
    def epoch(self) -> int:
        """Number of the holder."""
        return int(self.key.rpartition("/")[2].removesuffix(".json"))

    @property
    def is_free(self) -> bool:
        """Whether the lease may be taken."""
        is_silent = self.unmoved_seconds >= self.record.ttl_seconds
        return self.record.is_released or is_silent or is_dead(self.record.holder)

    @property
    def is_alive(self) -> bool:
        """Whether the holder is known to be alive; False if that is not known yet."""
        return not self.is_free and (self.has_moved or ran_here(self.record.holder))


class LeaseWatch:
    """What this process has seen of leases, on its own monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[str, Sighting] = {}

    def survey(self, store: Store, folder: str) -> LeaseListing:
        """The newest objects of all leases below `folder`, which ends with a slash."""
        began_at = time.monotonic()
        infos = {info.key.rpartition("/")[0]: info for info in store.list(folder)}
        return LeaseListing(infos, began_at)  # in key order: the last one of a prefix stays

    def look(
        self, store: Store, prefix: str, listing: LeaseListing | None = None
    ) -> Sighting | None:
        """The lease as it is now, or was at the time of the listing; None if nobody took it yet.

        A pause of this process counts as one renewal at most, because a pause of the whole machine
        stops the holder, too.
        """
        listing = listing or self.survey(store, f"{prefix}/")
        info, seen, began_at = listing.newest.get(prefix), self._seen.get(prefix), listing.began_at
        if info is None:
            self._seen.pop(prefix, None)
            return None
        if seen and info.version and (seen.key, seen.version) == (info.key, info.version):
            record = seen.record
        else:
            began_at = time.monotonic()
            try:
                record = _read(store, info.key)
            except NotFoundError:  # deleted since: there is a newer one, or none
                return self.look(store, prefix)
        now = time.monotonic()
        if seen is None or (seen.key, seen.record) != (info.key, record):
            found = Sighting(info.key, info.version, record, now, has_moved=seen is not None)
        else:
            passed = min(began_at - seen.at, record.ttl_seconds / _RENEWALS_PER_TTL)
            unmoved = seen.unmoved_seconds + max(0.0, passed)
            found = Sighting(info.key, info.version, record, now, unmoved, seen.has_moved)
        self._seen[prefix] = found
        return found

    def held(
        self, store: Store, prefixes: Collection[str], listing: LeaseListing | None = None
    ) -> list[str]:
        """Those of the leases that a live process holds.

        Watches those whose holder cannot be seen from here until they change, or have not for their
        time to live. With all others, this is one look, at the listing if there is one.
        """
        alive, unknown = set[str](), dict.fromkeys(prefixes, TTL_SECONDS)
        is_first = True
        while unknown:
            seen = {prefix: self.look(store, prefix, listing) for prefix in unknown}
            taken = {prefix: each for prefix, each in seen.items() if each and not each.is_free}
            alive |= {prefix for prefix, each in taken.items() if each.is_alive}
            unknown = {p: s.record.ttl_seconds for p, s in taken.items() if not s.is_alive}
            if unknown and is_first:
                _say_watched(store, [taken[prefix] for prefix in unknown])
            if unknown:
                time.sleep(min(_LOOK_SECONDS, *(ttl / 8 for ttl in unknown.values())))
            is_first, listing = False, None
        return [prefix for prefix in prefixes if prefix in alive]


class Lease:
    """A lease that this process holds. As a context manager, it is renewed until the body ends.

    Leaving the body releases it, also by an exception, so that the next run can take it.
    """

    def __init__(self, store: Store, prefix: str, epoch: int, record: LeaseRecord) -> None:
        self.prefix = prefix
        self.epoch = epoch
        self._store = store
        self._record = record
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
                f"{self._record.ttl_seconds:.0f} s; let the other run finish, or raise "
                "runtime.lease_seconds"
            )

    def renew(self) -> None:
        """Move the counter; LeaseError if another process took the lease over."""
        self.check()
        self._put(is_released=False)

    def release(self) -> None:
        """Release the lease. No effect if another process already took it over."""
        self._put(is_released=True)

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
        except StoreError as failure:  # it ends by its time to live; the body's outcome counts
            _log.warning("could not release %s: %s", self.prefix, failure)

    def _renew_until_over(self) -> None:
        while not self._is_over.wait(self._record.ttl_seconds / _RENEWALS_PER_TTL):
            try:
                self.renew()
            except LeaseError as failure:
                _log.warning("%s", failure)
                return
            except StoreError as failure:  # the next attempt may come in time
                _log.warning("could not renew %s: %s", self.prefix, failure)

    def _put(self, *, is_released: bool) -> None:
        changes = {"counter": self._record.counter + 1, "is_released": is_released}
        self._record = self._record.model_copy(update=changes)
        self._store.write(_key(self.prefix, self.epoch), self._record.to_json())


def try_acquire(
    store: Store,
    prefix: str,
    *,
    ttl_seconds: float = TTL_SECONDS,
    watch: LeaseWatch | None = None,
    listing: LeaseListing | None = None,
    holder: Holder | None = None,
) -> Lease | None:
    """Take the lease under `prefix`; None if a process holds it that is not known to be dead.

    Whoever tries again and again gives the same `watch`, so that the lease of a dead process is
    taken over. `listing` is a recent one of that watch; without one, the store is asked.
    """
    seen = (watch or LeaseWatch()).look(store, prefix, listing)
    if seen and not seen.is_free:
        return None
    epoch = seen.epoch + 1 if seen else 1
    record = LeaseRecord(
        holder=holder or this_process(), token=uuid4().hex, ttl_seconds=ttl_seconds
    )
    key = _key(prefix, epoch)
    if not store.create(key, record.to_json()) and not _is_ours(store, key, record):
        return None  # another was quicker
    if seen and not seen.record.is_released:
        _log.info("took %s over from process %d", prefix, seen.record.holder.pid)
    return Lease(store, prefix, epoch, record)


def hold(
    store: Store,
    prefix: str,
    *,
    ttl_seconds: float = TTL_SECONDS,
    watch: LeaseWatch | None = None,
    holder: Holder | None = None,
) -> Lease:
    """Take the lease, for a `with` statement; LeaseError if a live process holds it.

    If it is not known from here whether the holder is alive, its lease is watched for at most its
    time to live.
    """
    watch = watch or LeaseWatch()
    alive = watch.held(store, [prefix])
    lease = (
        None
        if alive
        else try_acquire(store, prefix, ttl_seconds=ttl_seconds, watch=watch, holder=holder)
    )
    if lease is None:
        raise LeaseError(f"{store.uri}/{prefix} {_held_by(LeaseWatch().look(store, prefix))}")
    return lease


def is_held(store: Store, prefix: str) -> bool:
    """Whether a live process holds the lease. It is watched like by `hold` if that is unknown."""
    return bool(LeaseWatch().held(store, [prefix]))


def is_claimed(store: Store, prefix: str) -> bool:
    """Whether a process holds the lease, or one on another machine did and was killed: one look."""
    seen = LeaseWatch().look(store, prefix)
    return seen is not None and not seen.is_free


def _key(prefix: str, epoch: int) -> str:
    return f"{prefix}/{epoch:06d}.json"


def _newest_epoch(store: Store, prefix: str) -> int | None:
    keys = [info.key for info in store.list(f"{prefix}/")]
    return int(keys[-1].removeprefix(f"{prefix}/").removesuffix(".json")) if keys else None


def _read(store: Store, key: str) -> LeaseRecord:
    try:
        return LeaseRecord.model_validate_json(store.read(key))
    except ValidationError as error:
        raise LeaseError(
            f"{store.uri}/{key} is not a valid lease ({error.error_count()} faults); delete it if "
            "no other version of pvar uses this store"
        ) from error


def _is_ours(store: Store, key: str, record: LeaseRecord) -> bool:
    """Whether the object was put by this attempt: a put that is repeated meets its own object."""
    with suppress(NotFoundError):
        return _read(store, key).token == record.token
    return False


def _say_watched(store: Store, unknown: Sequence[Sighting]) -> None:
    holder = unknown[0].record.holder
    _log.info(
        "%s: watching %d leases for up to %.0f s, because it is not known from here whether their "
        "holders are alive (process %d on %s)",
        store.uri,
        len(unknown),
        max(seen.record.ttl_seconds for seen in unknown),
        holder.pid,
        holder.host,
    )


def _held_by(seen: Sighting | None) -> str:
    if seen is None:
        return "is held by another process; try again"
    holder = seen.record.holder
    return (
        f"is held by process {holder.pid} on {holder.host}, which renews it while it runs; "
        "wait for it, or end it"
    )
