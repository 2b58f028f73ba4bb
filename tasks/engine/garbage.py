"""Garbage collection: find unused artifacts in a store, and delete them.

An artifact is in use if it is referred to (by a run or a model version), if a stage is working on
it (a live lease), or if an artifact in use was made from it. All other artifacts are garbage.

An artifact's manifest is deleted first and its recipe last. So an artifact that is being read
becomes incomplete (its reader raises an error, and the next run of the stage makes it again), and
the next collection finds what a killed one left. Artifacts are deleted before their inputs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from itertools import groupby
from typing import NamedTuple

from pvar.errors import LeaseError
from pvar.ports import ObjectInfo, Store
from tasks.engine.lease import LeaseListing, LeaseWatch
from tasks.engine.lineage import Lineage, Listing


class Garbage(NamedTuple):
    """An unused artifact."""

    root: str
    num_bytes: int
    num_objects: int
    modified: datetime
    """Time of its newest object."""


@dataclass(frozen=True)
class Plan:
    """The objects to delete."""

    artifacts: tuple[Garbage, ...]
    """Unused artifacts in the order of deletion."""
    stale_leases: tuple[ObjectInfo, ...]
    """Obsolete leases of artifacts in use."""
    num_needed: int
    """Artifacts in use."""


def plan_gc(
    store: Store,
    lineage: Lineage,
    objects: Listing,
    named: Set[str],
    watch: LeaseWatch,
    *,
    caches: Sequence[str] = (),
) -> Plan:
    """Find the garbage among the artifacts of `objects`; `named` are `stage/digest`.

    Artifacts of the stages `caches` are not referred to. A cache is in use as long as all of its
    inputs are. Leases whose holders cannot be seen from here are watched for their time to live.
    """
    newest = [leases[-1] for infos in objects.values() for leases in _leases(infos)]
    leased = {prefix.partition("/leases/")[0] for prefix in _held(store, newest, watch)}
    needed = _with_inputs(named | leased, lineage) & objects.keys()
    needed |= {
        root
        for root in objects
        if root.partition("/")[0] in caches
        and (made_from := _inputs(root, lineage))
        and all(source in needed for source in made_from if source in objects)
    }
    return Plan(
        artifacts=tuple(
            Garbage(
                root,
                sum(info.num_bytes for info in objects[root]),
                len(objects[root]),
                max(info.modified for info in objects[root]),
            )
            for root in _dependents_first(objects.keys() - needed, lineage)
        ),
        stale_leases=tuple(
            info
            for root in sorted(needed - leased)
            for info in _stale(objects[root], is_complete=_is_complete(root, lineage))
        ),
        num_needed=len(needed),
    )


def delete_artifact(store: Store, root: str, watch: LeaseWatch) -> bool:
    """Delete all objects of an artifact. If it is leased now, do nothing and return False."""
    infos = list(store.list(f"{root}/"))
    if _held(store, [leases[-1] for leases in _leases(infos)], watch):
        return False
    rank = {f"{root}/manifest.json": 0, f"{root}/recipe.json": 2}
    for info in sorted(infos, key=lambda info: rank.get(info.key, 1)):
        store.delete(info.key)
    return True


def _leases(infos: Sequence[ObjectInfo]) -> list[list[ObjectInfo]]:
    """The lease objects of each shard, oldest first (their names are numbers)."""
    leases = sorted(info for info in infos if info.key.split("/")[2] == "leases")
    return [list(each) for _, each in groupby(leases, lambda info: info.key.rpartition("/")[0])]


def _held(store: Store, infos: Iterable[ObjectInfo], watch: LeaseWatch) -> list[str]:
    """Prefixes of the leases that a live process holds, or that cannot be read."""
    newest = {info.key.rpartition("/")[0]: info for info in infos}
    listing = LeaseListing(newest, -math.inf)  # of before: it shows nobody to be silent
    held, unreleased = list[str](), list[str]()
    for prefix in newest:
        try:
            seen = watch.look(store, prefix, listing)
        except LeaseError:
            held.append(prefix)  # not ours to judge
        else:
            if seen is not None and not seen.is_free:
                unreleased.append(prefix)
    return held + watch.held(store, unreleased)


def _stale(infos: Sequence[ObjectInfo], *, is_complete: bool) -> list[ObjectInfo]:
    """Leases of past holders; of a complete artifact also the last one (its number may recur)."""
    return [info for leases in _leases(infos) for info in (leases if is_complete else leases[:-1])]


def _is_complete(root: str, lineage: Lineage) -> bool:
    entry = lineage.entries.get(root)
    return entry is not None and entry.state == "complete"


def _with_inputs(roots: Set[str], lineage: Lineage) -> set[str]:
    """The artifacts, and everything from which they were made."""
    needed: set[str] = set()
    waiting = list(roots)
    while waiting:
        root = waiting.pop()
        if root not in needed:
            needed.add(root)
            waiting += _inputs(root, lineage)
    return needed


def _dependents_first(roots: Set[str], lineage: Lineage) -> list[str]:
    graph: Mapping[str, list[str]] = {
        root: [source for source in _inputs(root, lineage) if source in roots]
        for root in sorted(roots)
    }
    return list(TopologicalSorter(graph).static_order())[::-1]


def _inputs(root: str, lineage: Lineage) -> list[str]:
    entry = lineage.entries.get(root)
    return [] if entry is None else [link.ref for link in entry.made_from]
