"""Local copies of models in `{home}/models/…`, fetched or converted once for all later stages.

A process that uses a copy locks all of them until it ends in any way, because a stage may read its
model again at any time, also in child processes. Unlocked copies can be deleted; the next stage
that needs one fetches it again.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from filelock import lock_descriptor

LOCK = ".lock"


class LocalFolder(NamedTuple):
    """A local folder and its size."""

    path: Path
    num_bytes: int


def sized(path: Path) -> LocalFolder:
    """The folder with the size of its files."""
    return LocalFolder(path, sum(file.lstat().st_size for file in path.rglob("*")))


@cache
def hold_copies(models: Path) -> int:
    """Protect the copies below `models` from deletion until this process ends.

    Returns the lock's descriptor, which stays open.
    """
    models.mkdir(parents=True, exist_ok=True)
    lock = os.open(models / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    # Waits while copies are dropped. Not filelock's ReadWriteLock: that is a transaction on a
    # SQLite database, which a forked child may not use and which needs SQLite's locks on the home's
    # file system. This lock excludes the one of `lock_descriptor`, which is of the same kind.
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


@contextmanager
def unused_copies(models: Path, stages: Sequence[str]) -> Iterator[list[LocalFolder]]:
    """The copies, those of artifacts one by one; no process can start to use one in the body.

    None while any process uses one of them.
    """
    if not models.is_dir():
        yield []
        return
    with (models / LOCK).open("ab") as lock:
        if not lock_descriptor(lock.fileno(), blocking=False):
            yield []
            return
        yield [sized(path) for path in _copies(models, stages)]


def _copies(models: Path, stages: Sequence[str]) -> Iterator[Path]:
    for path in sorted(path for path in models.iterdir() if path.is_dir()):
        if path.name in stages:
            yield from sorted(path.iterdir())
        else:
            yield path
