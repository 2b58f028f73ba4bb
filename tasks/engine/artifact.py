"""Read a complete artifact: its manifest, its verified files and its tables.

Sizes are checked against the store's listing before an artifact is reused; SHA-256 is checked on
every byte that is read. A damaged file is deleted together with its shard's record and the
manifest, so that the next run of the stage makes only that shard again.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from pvar.artifacts import FileRecord, Manifest, ShardRecord
from pvar.errors import DamagedError, IncompleteError, NotFoundError
from pvar.ports import Store
from tasks.engine.tables import Record, read_parts, read_table

logger = logging.getLogger(__name__)

_Document = TypeVar("_Document", bound=BaseModel)


@dataclass(frozen=True)
class ArtifactKeys:
    """Keys of an artifact's objects in the store."""

    stage: str
    digest: str

    @property
    def root(self) -> str:
        """`stage/digest`: the name of the artifact in logs, tags and commands."""
        return f"{self.stage}/{self.digest}"

    @property
    def recipe(self) -> str:
        """Key of the recipe, which is written first."""
        return f"{self.root}/recipe.json"

    @property
    def manifest(self) -> str:
        """Key of the manifest, which is written last."""
        return f"{self.root}/manifest.json"

    @property
    def waiting(self) -> str:
        """What the stage waits for; of no meaning once the manifest is there."""
        return f"{self.root}/waiting.json"

    def record(self, shard: int) -> str:
        """Key of one shard's record."""
        return f"{self.root}/shards/{shard:05d}.json"

    def lease(self, shard: int) -> str:
        """Prefix of the leases on one shard."""
        return f"{self.root}/leases/{shard:05d}"


@dataclass(frozen=True)
class Artifact:
    """A complete artifact, with a local folder for its downloaded files."""

    store: Store
    keys: ArtifactKeys
    manifest: Manifest
    cache: Path

    def path(self, shard: ShardRecord, name: str) -> Path:
        """Local, verified copy of one file of a shard."""
        record = next(file for file in shard.files if file.name == name)
        target = self.cache / self.keys.root / shard.folder / name
        if not target.exists():
            fetch_verified(self.store, self.keys, shard, record, target)
        return target

    def paths(self, name: str) -> Iterator[Path]:
        """Local copies of the files with this name, one per shard, in shard order."""
        for shard in self.manifest.shards:
            yield self.path(shard, name)

    def rows(self, name: str, record: type[Record]) -> list[Record]:
        """All rows of a table, over its shards."""
        return [row for path in self.paths(name) for row in read_table(path, record)]

    def batches(self, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of a table, over its shards, in parts."""
        for path in self.paths(name):
            yield from read_parts(path, columns)

    def folder(self, name: str) -> Path:
        """Local copy of a folder of files of a one-shard artifact (a model)."""
        shard = self.manifest.shards[0]
        for file in shard.files:
            if file.name.startswith(f"{name}/"):
                self.path(shard, file.name)
        return self.cache / self.keys.root / shard.folder / name


def open_artifact(store: Store, stage: str, digest: str, cache: Path) -> Artifact:
    """The complete artifact with these keys; IncompleteError if it is incomplete or missing."""
    keys = ArtifactKeys(stage, digest)
    manifest = read_document(store, keys.manifest, Manifest)
    if manifest is None:
        raise IncompleteError(
            f"{keys.root} is incomplete in {store.uri}: no manifest; run stage {stage} first"
        )
    return Artifact(store, keys, manifest, cache)


def read_document(
    store: Store,
    key: str,
    kind: type[_Document],
    *,
    remedy: str = "delete that object and run the stage again",
) -> _Document | None:
    """A document of the store; None if it is missing; DamagedError with `remedy` if it is
    invalid."""
    try:
        data = store.read(key)
    except NotFoundError:
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise DamagedError(
            f"{store.uri}/{key} is not a valid {kind.__name__.lower()}: "
            f"{error.errors()[0]['msg']}; {remedy}"
        ) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_verified(
    store: Store, keys: ArtifactKeys, shard: ShardRecord, record: FileRecord, target: Path
) -> None:
    """Download and verify a file. A damaged one is deleted, and DamagedError is raised."""
    key = f"{keys.root}/{shard.folder}/{record.name}"
    partial = target.with_name(f"{target.name}.{uuid4().hex}.part")
    found = None
    try:
        for _ in range(2):  # once more, in case the damage was done on the way here
            try:
                store.download(key, partial)
            except NotFoundError:
                continue
            found = sha256_of(partial)
            if found == record.sha256:
                partial.replace(target)
                return
    finally:
        partial.unlink(missing_ok=True)
    current = read_document(store, keys.record(shard.index), ShardRecord)
    if found is None and current is not None and current.folder != shard.folder:
        raise IncompleteError(
            f"{store.uri}/{key} was replaced: rows of shard {shard.index} of {keys.root} were "
            "erased meanwhile (pvar forget --erase); run the same command again"
        )
    discard_shard(store, keys, shard.index)
    raise DamagedError(
        f"{store.uri}/{key}: {'no such file' if found is None else f'sha256 is {found}'}, but its "
        f"record says {record.sha256}; shard {shard.index} of {keys.root} was discarded: run "
        f"`pvar run` to make it again (or `pvar stage {keys.stage}` and then the later stages)"
    )


def discard_shard(store: Store, keys: ArtifactKeys, shard: int) -> None:
    """Delete the record of a shard and the manifest, so that the artifact is incomplete."""
    logger.warning("%s: discarding shard %d", keys.root, shard)
    store.delete(keys.manifest)
    store.delete(keys.record(shard))
