"""New files under the incoming prefix: read, judged, the bad ones quarantined.

    incoming/2026-11-23.jsonl                                    put there by anybody
    quarantine/{sha256}/2026-11-23.jsonl                         a bad one, moved
    quarantine/{sha256}/2026-11-23.jsonl.reason.json             and why

Good files stay where they are. Names that begin with a dot are not looked at: an upload in progress
hides behind one.
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
"""Rows of a local file; InputError for one that cannot be read."""


class Quarantined(BaseModel):
    """The reason object beside a file in quarantine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    """Where the file was."""
    reason: str
    row_counts: RowCounts


class GoodFile(NamedTuple):
    """A new file that can be trained on, and its local copy."""

    file: IncomingFile
    path: Path


class Look(NamedTuple):
    """What was found under the prefix."""

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
    """Read every file whose version is not `known`, in key order; quarantine the bad ones.

    A file that changes or vanishes while it is read is left for the next look. Local copies are
    made in `scratch`.
    """
    good, quarantined = [], []
    for index, info in enumerate(_new_objects(store, prefix, known)):
        path = scratch / f"{index:06d}" / _name(info.key)
        if not _fetch(store, info, path):
            logger.info("%s changed while it was read; it is left for the next look", info.key)
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
        and _name(info.key)  # S3 consoles make empty objects whose key ends with a slash
        and not _name(info.key).startswith(".")
    ]


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _fetch(store: Store, info: ObjectInfo, path: Path) -> bool:
    """Download the object; False if it is no longer the one that was listed."""
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
        # The message names the temporary copy; the user knows the object.
        reason = str(error).replace(str(path), key)
        return FileReport(RowCounts(), reason)


def _quarantine(
    store: Store, info: ObjectInfo, path: Path, sha256: str, reason: Quarantined
) -> None:
    """Copy, say why, then remove the original: after a crash in between it is done again."""
    target = f"{QUARANTINE}/{sha256[:16]}/{_name(info.key)}"
    store.upload(path, target)
    store.write(f"{target}.reason.json", reason.model_dump_json(indent=1).encode() + b"\n")
    if _is_unchanged(store, info):  # a mended file may have taken its place
        store.delete(info.key)
    logger.warning("%s moved to %s: %s", info.key, target, reason.reason)
