"""A file that is made under another name in its folder, and gets its own name when it is complete.

{name}.part   while it is made; what a killed process left is removed by the next one
{name}.lock   held meanwhile, so that processes that start together make one file
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

SQLITE_SUFFIXES = ("", "-journal", "-wal", "-shm")
"""Names of a SQLite database and of what it has beside it while it is written."""


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """The other name, which nothing has, while no other process has it; the body renames it.

    Another process may have made `path` while this one waited. The folder must exist.
    """
    partial = path.with_name(f"{path.name}.part")
    with path.with_name(f"{path.name}.lock").open("ab") as lock:
        lock_descriptor(lock.fileno())
        for suffix in SQLITE_SUFFIXES:
            partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)
        yield partial


def take_name(partial: Path, path: Path) -> None:
    """Give the complete file its name, where nothing or an empty file has it.

    What a removed database of that name left beside it would be replayed into this one.
    """
    for suffix in SQLITE_SUFFIXES[1:]:
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
    os.replace(partial, path)


def has_content(path: Path) -> bool:
    """Whether there is a file that is not empty, as SQLite leaves one before its first write."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
