"""Local folders of running stages, `{home}/work/{node}-…`, locked while their process runs.

A killed process leaves its folder behind, including inputs and checkpoints. The system releases the
lock of a dead process on any host or container, so an unlocked folder is unused.
"""

import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

LOCK = ".lock"

STALE_SECONDS = 3600
"""A younger folder is kept even if it is not locked (yet)."""


@contextmanager
def work_folder(home: Path, name: str) -> Iterator[Path]:
    """A folder for the body's files, removed afterwards."""
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=work) as folder:
        path = Path(folder)
        with (path / LOCK).open("wb") as lock:
            lock_descriptor(lock.fileno())
            yield path


def held_folder(owner: object, home: Path, name: str) -> Path:
    """A folder that is removed when `owner` is no longer used, or at the end of the process."""
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
    lock = (path / LOCK).open("wb")
    lock_descriptor(lock.fileno())
    weakref.finalize(owner, _remove, path, lock)
    return path


def _remove(path: Path, lock: BinaryIO) -> None:
    lock.close()
    shutil.rmtree(path, ignore_errors=True)


def abandoned_folders(home: Path) -> list[Path]:
    """Folders whose process has ended."""
    locks = sorted((home / "work").glob(f"*/{LOCK}"))
    return [lock.parent for lock in locks if _is_old(lock) and _is_unlocked(lock)]


def _is_old(lock: Path) -> bool:
    return time.time() - lock.stat().st_mtime > STALE_SECONDS


def _is_unlocked(lock: Path) -> bool:
    with lock.open("rb") as file:
        return lock_descriptor(file.fileno(), blocking=False)
