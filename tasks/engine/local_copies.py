"""Local copies of models, `{home}/models/…`: fetched or converted once, for all later stages.

A process that uses one has all of them locked until it ends, however it ends: a stage reads its
model again whenever it likes, in child processes too. What nobody has locked can go; the next stage
that needs it fetches it again.
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
    """A folder on this machine and what it takes."""

    path: Path
    num_bytes: int


def sized(path: Path) -> LocalFolder:
    """The folder with the size of its files."""
    return LocalFolder(path, sum(each.lstat().st_size for each in path.rglob("*")))


@cache
def hold_copies(models: Path) -> int:
    """Keep the copies below `models` from being dropped until this process ends.

    Returns the lock's descriptor, which nobody closes.
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
    """The copies, those of artifacts one by one; nobody begins to use one before the body ends.

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
