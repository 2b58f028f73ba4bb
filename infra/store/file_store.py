"""Objects as files below a folder.

Every write goes to a temporary file in `<root>/.tmp` (the same file system), is synced to the disk
and gets its name atomically: by `os.replace` for `write`, by `os.link` for `create`, which fails if
the name exists. A reader sees the whole object or none, also after a power failure.

A writer locks its temporary file while it runs. Opening the store removes temporary files that are
unlocked and at least an hour old, which are left by killed writers.
"""

import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

from infra.store.disk import cause
from infra.store.keys import TEMPORARY, check_key, check_prefix
from pvar.errors import NotFoundError, StoreError
from pvar.ports import ObjectInfo

_log = logging.getLogger(__name__)

STALE_SECONDS = 3600
"""A younger temporary file is kept even if it is not locked (yet)."""

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors for a missing object: no such name, a part of the name is an object, or it is a folder."""


class FileStore:
    """A `Store` in a folder, which is made by the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def uri(self) -> str:
        """The folder as a file:// address."""
        return self._root.as_uri()

    def read(self, key: str) -> bytes:
        """Return the object's bytes."""
        with self._explained("read", key), self._existing(key) as file:
            return file.read()

    def write(self, key: str, data: bytes) -> None:
        """Put the object, replacing what is there."""
        with self._explained("write", key), self._new_file(key) as (file, name):
            file.write(data)
            _settle(file)
            os.replace(file.name, name)

    def create(self, key: str, data: bytes) -> bool:
        """Put the object if it does not exist; otherwise return False."""
        with self._explained("create", key), self._new_file(key) as (file, name):
            file.write(data)
            _settle(file)
            try:
                os.link(file.name, name)
            except FileExistsError:
                return False
            return True

    def download(self, key: str, path: Path) -> None:
        """Copy the object to a local file, which appears when it is complete."""
        with self._explained("read", key), self._existing(key) as source:
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("xb") as target:
                    shutil.copyfileobj(source, target)
                os.replace(partial, path)
            except OSError as error:
                why = cause(error, path.parent, "choose another folder")
                message = f"{self.uri}: cannot download {key!r} to {path}: {why}"
                raise StoreError(message) from error
            finally:
                with suppress(OSError):
                    partial.unlink()

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file into the store."""
        with (
            path.open("rb") as source,
            self._explained("upload", key),
            self._new_file(key) as (file, name),
        ):
            shutil.copyfileobj(source, file)
            _settle(file)
            os.replace(file.name, name)

    def list(self, prefix: str, depth: int | None = None) -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix`, at most `depth` folders deep, in key order."""
        folder = check_prefix(prefix).rpartition("/")[0]
        base = f"{folder}/" if folder else ""
        with self._explained("list", prefix):
            yield from _objects(str(self._root / folder), base, prefix, depth)

    def delete(self, key: str) -> None:
        """Remove the object. No error if it does not exist."""
        with self._explained("delete", key), suppress(*_ABSENT):
            self._path(key).unlink()

    def _existing(self, key: str) -> BinaryIO:
        try:
            return open(f"{self._root}/{check_key(key)}", "rb")
        except _ABSENT as error:
            raise NotFoundError(f"{self.uri}: there is no object {key!r}") from error

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    @contextmanager
    def _new_file(self, key: str) -> Iterator[tuple[BinaryIO, Path]]:
        """A locked temporary file and the object's path; the body renames the one to the other."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = self._root / TEMPORARY
        folder.mkdir(exist_ok=True)
        temporary = folder / uuid.uuid4().hex
        try:
            with temporary.open("xb") as file:
                lock_descriptor(file.fileno())
                yield file, path
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        """Turn OSError into StoreError with the cause and what to do."""
        try:
            yield
        except OSError as error:
            why = cause(error, self._root, "move the store with PVAR_STORE_URI")
            raise StoreError(f"{self.uri}: cannot {verb} {key!r}: {why}") from error


def open_file_store(root: Path) -> FileStore:
    """Open the store in `root` and remove temporary files of killed writers."""
    _remove_stale(root / TEMPORARY)
    return FileStore(root)


def _objects(folder: str, base: str, prefix: str, depth: int | None) -> Iterator[ObjectInfo]:
    """Objects in and below `folder`, whose keys begin with `base`, in key order."""
    left = _entries(folder, base, prefix)
    while left:
        key, entry = left.pop()
        if key.endswith("/"):
            if depth is None or key.count("/", len(prefix)) <= depth:
                left += _entries(entry.path, key, prefix)
            continue
        with suppress(FileNotFoundError):  # deleted since
            status = entry.stat()
            modified = datetime.fromtimestamp(status.st_mtime, UTC)
            version = f"{status.st_ino:x}-{status.st_ctime_ns:x}"
            yield ObjectInfo(key, status.st_size, modified, version)


def _entries(folder: str, base: str, prefix: str) -> "list[tuple[str, os.DirEntry[str]]]":
    """What is in a folder, with its key, which for a folder ends with a slash; last key first."""
    try:
        with os.scandir(folder) as scan:
            # `a-b` comes before `a/b`: a folder is sorted by its name with the slash.
            entries = [(f"{base}{e.name}/" if e.is_dir() else base + e.name, e) for e in scan]
    except (FileNotFoundError, NotADirectoryError):
        return []
    if len(base) < len(prefix):
        entries = [each for each in entries if f"{base}{each[1].name}".startswith(prefix)]
    if not base:
        entries = [each for each in entries if each[0] != f"{TEMPORARY}/"]
    entries.sort(key=itemgetter(0), reverse=True)
    return entries


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Sync the folder, so that the new name survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_system_time(folder: Path) -> float:
    """The time by which the file system dates files: a shared one may not follow this machine."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _remove_stale(folder: Path) -> None:
    with suppress(OSError):  # a store that cannot be cleaned can still be read
        paths = list(folder.iterdir())
        now = _file_system_time(folder) if paths else 0.0
        for path in paths:
            if now - path.stat().st_mtime > STALE_SECONDS and _is_unlocked(path):
                path.unlink()
                _log.info("removed %s, left by a writer that was killed", path)


def _is_unlocked(path: Path) -> bool:
    with path.open("r+b") as file:
        return lock_descriptor(file.fileno(), blocking=False)
