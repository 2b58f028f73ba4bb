"""New files under the incoming prefix. They are validated, and invalid files are quarantined.

    incoming/2026-11-23.jsonl                                    a new file from the user
    quarantine/{sha256}/2026-11-23.jsonl                         an invalid file, moved
    quarantine/{sha256}/2026-11-23.jsonl.reason.json             why it is invalid

Valid files stay in place. Names that begin with a dot are ignored, because tools use them for
uploads in progress.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.errors import InputError, NotFoundError
from pvar.incoming_rows import FileReport, inspect_rows
from pvar.ports import ObjectInfo, Store
from pvar.records import BadRow, Row
from pvar.retrain_decision import IncomingFile
from pvar.row_counts import RowCounts
from tasks.engine.artifact import sha256_of

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine"

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
    """A valid new file and its local copy."""

    file: IncomingFile
    path: Path


class Look(NamedTuple):
    """The new files under the prefix."""

    good: tuple[GoodFile, ...]
    quarantined: tuple[Quarantined, ...]


def look(
    store: Store,
    prefix: str,
    read: RowReader,
    *,
    known: Collection[tuple[str, int, datetime]],
    scratch: Path,
) -> Look:
    """Read every file whose version is not `known`, in key order, and quarantine invalid files.

    A file that changes or disappears while it is read is skipped until the next retraining. Local
    copies are made in `scratch`.
    """
    good, quarantined = [], []
    for index, info in enumerate(_new_objects(store, prefix, known)):
        path = scratch / f"{index:06d}" / _name(info.key)
        if not _fetch(store, info, path):
            logger.info("%s changed while it was read; the next retraining reads it", info.key)
            continue
        sha256 = sha256_of(path)
        row_counts, refusal = _inspect(path, read, info.key)
        if refusal is None:
            file = IncomingFile(
                key=info.key,
                num_bytes=info.num_bytes,
                modified=info.modified,
                sha256=sha256,
                row_counts=row_counts,
            )
            good.append(GoodFile(file, path))
        else:
            reason = Quarantined(key=info.key, reason=refusal, row_counts=row_counts)
            _quarantine(store, info, path, sha256, reason)
            quarantined.append(reason)
    return Look(tuple(good), tuple(quarantined))


def _new_objects(
    store: Store, prefix: str, known: Collection[tuple[str, int, datetime]]
) -> list[ObjectInfo]:
    return [
        info
        for info in store.list(f"{prefix.rstrip('/')}/")
        if tuple(info) not in known
        and _name(info.key)  # S3 consoles create empty objects with keys that end with a slash
        and not _name(info.key).startswith(".")
    ]


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _fetch(store: Store, info: ObjectInfo, path: Path) -> bool:
    """Download the object. Return False if it differs from the listed object."""
    try:
        store.download(info.key, path)
    except NotFoundError:
        return False
    return _is_unchanged(store, info)


def _is_unchanged(store: Store, info: ObjectInfo) -> bool:
    return any(current == info for current in store.list(info.key))


def _inspect(path: Path, read: RowReader, key: str) -> FileReport:
    try:
        return inspect_rows(read(path), key)
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
    target = f"{QUARANTINE}/{sha256[:16]}/{_name(info.key)}"
    store.upload(path, target)
    store.write(f"{target}.reason.json", reason.model_dump_json(indent=1).encode() + b"\n")
    if _is_unchanged(store, info):  # the user may have replaced it by a fixed file
        store.delete(info.key)
    logger.warning("%s moved to %s: %s", info.key, target, reason.reason)
