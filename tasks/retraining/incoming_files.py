"""New files under the incoming prefix. They are validated, and invalid files are quarantined.

    incoming/2026-11-23.jsonl                                    a new file from the user
    quarantine/{sha256}/2026-11-23.jsonl                         an invalid file, moved
    quarantine/{sha256}/2026-11-23.jsonl.reason.json             why it is invalid
    retrain/inspected.json                                       valid files in no batch yet

Valid files stay in place. They are inspected once: as long as the store lists the same version, a
later retraining reads them only when it makes a batch of them. So a retraining that finds thousands
of waiting files lists them and reads one object. Names that begin with a dot are ignored, because
tools use them for uploads in progress.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from pvar.errors import InputError, NotFoundError
from pvar.incoming_rows import FileReport, SeenRows, inspect_rows
from pvar.ports import ObjectInfo, Store
from pvar.records import BadRow, Row
from pvar.retrain_decision import FileVersion, IncomingFile
from pvar.row_counts import RowCounts
from tasks.engine.artifact import sha256_of

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine"

_INSPECTED = "retrain/inspected.json"

MAX_NAME_BYTES = 200
"""Of the 255 bytes that a file's name may have; other names are made by appending to it."""

RowReader = Callable[[Path], Iterator[Row | BadRow]]
"""Reads the rows of a local file. Raises InputError if it cannot be read."""


class Quarantined(BaseModel):
    """The reason why a file is in quarantine, stored beside the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """The original key of the file."""
    reason: str
    row_counts: RowCounts


class GoodFile(NamedTuple):
    """A valid new file."""

    file: IncomingFile
    path: Path | None
    """Its local copy; None if an earlier retraining inspected it (`fetch`)."""


class Look(NamedTuple):
    """The new files under the prefix."""

    good: tuple[GoodFile, ...]
    quarantined: tuple[Quarantined, ...]


class _Inspected(BaseModel):
    """The stored record of valid files that are in no batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: tuple[IncomingFile, ...]


def look(
    store: Store,
    prefix: str,
    read: RowReader,
    *,
    known: Collection[FileVersion],
    scratch: Path,
    seen: Callable[[], SeenRows] = SeenRows,
) -> Look:
    """Inspect every file whose version is not `known`, in key order, and quarantine invalid files.

    A file that changes or disappears meanwhile is left to the next retraining: what is listed
    afterwards must be what was listed before. Local copies are made in `scratch`. `seen` gives
    what does not count as new; it is called if a file has to be inspected.
    """
    earlier_rows: SeenRows | None = None
    inspected = {file.version: file for file in _read_inspected(store)}
    good, bad = [], []
    for index, info in enumerate(_new_objects(store, prefix, known)):
        if earlier := inspected.get(FileVersion(*info)):
            good.append(GoodFile(earlier, None))
            continue
        path = scratch / f"{index:06d}" / _local_name(info.key)
        try:
            store.download(info.key, path)
        except NotFoundError:
            continue
        sha256 = sha256_of(path)
        earlier_rows = earlier_rows or seen()
        report = _inspect(path, read, info.key, earlier_rows)
        if report.refusal is None:
            good.append(GoodFile(_incoming_file(info, sha256, report), path))
        else:
            reason = Quarantined(key=info.key, reason=report.refusal, row_counts=report.row_counts)
            bad.append((info, path, sha256, reason))
    listed = {FileVersion(*info) for info in store.list(f"{prefix.rstrip('/')}/")}
    kept = [each for each in good if _is_unchanged(each.file.version, listed)]
    quarantined = []
    for info, path, sha256, reason in bad:
        if _is_unchanged(FileVersion(*info), listed):
            _quarantine(store, info, path, sha256, reason)
            quarantined.append(reason)
    return Look(tuple(kept), tuple(quarantined))


def fetch(store: Store, good: Iterable[GoodFile], scratch: Path) -> list[GoodFile]:
    """The files with local copies, without those that changed since they were inspected."""
    fetched = []
    for index, each in enumerate(good):
        path = each.path or scratch / f"again-{index:06d}" / _local_name(each.file.key)
        with suppress(NotFoundError):
            if each.path is None:
                store.download(each.file.key, path)
            if sha256_of(path) == each.file.sha256:
                fetched.append(GoodFile(each.file, path))
                continue
        logger.info("%s changed; the next retraining reads it", each.file.key)
    return fetched


def keep_inspected(store: Store, files: Iterable[IncomingFile]) -> None:
    """Record valid files that are in no batch, for the next retraining. The lease is held."""
    inspected = _Inspected(files=tuple(files))
    if inspected.files != _read_inspected(store):
        store.write(_INSPECTED, inspected.model_dump_json(indent=1).encode() + b"\n")


def _read_inspected(store: Store) -> tuple[IncomingFile, ...]:
    try:
        return _Inspected.model_validate_json(store.read(_INSPECTED)).files
    except (NotFoundError, ValidationError):  # another version's: the files are inspected again
        return ()


def forget_inspected(store: Store) -> None:
    """The next retraining inspects all files again that are in no batch."""
    store.delete(_INSPECTED)


def _incoming_file(info: ObjectInfo, sha256: str, report: FileReport) -> IncomingFile:
    return IncomingFile(
        key=info.key,
        num_bytes=info.num_bytes,
        modified=info.modified,
        sha256=sha256,
        row_counts=report.row_counts,
        store_version=info.version,
        num_not_new=report.num_not_new,
    )


def _new_objects(store: Store, prefix: str, known: Collection[FileVersion]) -> list[ObjectInfo]:
    found = []
    for info in store.list(f"{prefix.rstrip('/')}/"):
        version = FileVersion(*info)
        if version in known or version.without_store_version in known:
            continue
        if _name(info.key).startswith("."):
            continue
        if _is_usable(info.key):
            found.append(info)
        else:
            logger.warning("%r is not read: its name cannot be a key; rename it", info.key)
    return found


def _is_usable(key: str) -> bool:
    """Whether a store takes the key. Other tools can make names that it refuses."""
    parts = key.split("/")
    return key.isprintable() and "\\" not in key and not {"", ".", ".."} & set(parts)


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _local_name(key: str) -> str:
    """The file's name, or its end with the suffix if nothing could be appended to the whole."""
    name = _name(key)
    return name if len(name.encode()) <= MAX_NAME_BYTES else name[-MAX_NAME_BYTES // 4 :]


def _is_unchanged(version: FileVersion, listed: Collection[FileVersion]) -> bool:
    if version in listed:
        return True
    logger.info("%s changed while it was read; the next retraining reads it", version.key)
    return False


def _inspect(path: Path, read: RowReader, key: str, seen: SeenRows) -> FileReport:
    try:
        return inspect_rows(read(path), key, seen)
    except InputError as error:
        # The message names the temporary copy, but the user only knows the key.
        reason = str(error).replace(str(path), key)
        return FileReport(RowCounts(), reason)


def _quarantine(
    store: Store, info: ObjectInfo, path: Path, sha256: str, reason: Quarantined
) -> None:
    """Copy the file, write the reason, then delete the original.

    After a crash in between, the next retraining repeats all steps.
    """
    target = f"{QUARANTINE}/{sha256[:16]}/{_local_name(info.key)}"
    store.upload(path, target)
    store.write(f"{target}.reason.json", reason.model_dump_json(indent=1).encode() + b"\n")
    if info in store.list(info.key):  # the user may have replaced it by a fixed file
        store.delete(info.key)
    logger.warning("%s moved to %s: %s", info.key, target, reason.reason)
