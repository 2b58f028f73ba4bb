"""Local folders of running stages, `{home}/work/{node}-…`: locked while their process lives.

A process that is killed leaves its folder behind, inputs and checkpoints included. The system drops
a dead process's lock, on whatever host or container it ran, so an unlocked folder is nobody's.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

LOCK = ".lock"

STALE_SECONDS = 3600
"""A younger folder is left alone even if nobody has locked it (yet)."""


@contextmanager
def work_folder(home: Path, name: str) -> Iterator[Path]:
    """A folder for the body's files, removed after it."""
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=work) as folder:
        path = Path(folder)
        with (path / LOCK).open("wb") as lock:
            lock_descriptor(lock.fileno())
            yield path


def abandoned_folders(home: Path) -> list[Path]:
    """Folders whose process is gone."""
    locks = sorted((home / "work").glob(f"*/{LOCK}"))
    return [lock.parent for lock in locks if _is_old(lock) and _is_unlocked(lock)]


def _is_old(lock: Path) -> bool:
    return time.time() - lock.stat().st_mtime > STALE_SECONDS


def _is_unlocked(lock: Path) -> bool:
    with lock.open("rb") as file:
        return lock_descriptor(file.fileno(), blocking=False)
