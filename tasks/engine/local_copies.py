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
    fcntl.flock(lock, fcntl.LOCK_SH)  # waits while copies are dropped
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
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield []
            return
        yield [sized(path) for path in _copies(models, stages)]


def _copies(models: Path, stages: Sequence[str]) -> Iterator[Path]:
    for path in sorted(path for path in models.iterdir() if path.is_dir()):
        if path.name in stages:
            yield from sorted(path.iterdir())
        else:
            yield path
