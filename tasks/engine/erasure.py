"""Erase the rows of some prompts from an artifact, which stays complete.

    prompt_id, row_id     rows with one of the ids are left out
    exam_prompt_id        beside one of the ids, the text in `shared` is
    detail                is left out for rows that are named by a line, in a shard with such rows,
                          because it may quote one of them

The shards concerned are put again, in folders of their own, and then the manifest, the records, and
last the earlier files are deleted. So after a kill the artifact is complete in its earlier or its
new form, and `clean_up` finishes the rest. The manifest keeps the hash of its first form
(`Manifest.erased_from`): what was made from the artifact stays valid, figures and models included,
and is not made again.

An incomplete artifact with such rows is deleted as a whole. No run goes on with it: data without
these prompts give another artifact.

A file that is beside such a table in one shard, a model for example, is copied to the new folder.
Only tables are erased: files that are exported for published benchmarks are not.
"""

import logging
import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pvar.artifacts import Manifest, ShardRecord
from pvar.ports import Store
from tasks.engine.artifact import Artifact, ArtifactKeys, read_document
from tasks.engine.lease import LeaseListing, LeaseWatch
from tasks.engine.shard_files import upload_shard

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_TABLE = ".parquet"
_IDS = ("prompt_id", "row_id")
_NO_TEXTS = ("split", "source", "finish_reason", "reason", "evidence", "rule", "measure")


class ErasedTable(NamedTuple):
    """A table of which rows or texts are to be erased."""

    shard: int
    name: str
    num_rows: int
    """Rows with one of the ids."""


class Passage(NamedTuple):
    """A text that a row to be erased holds, and its prompt."""

    prompt_id: str
    text: str


def rows_to_erase(artifact: Artifact, prompt_ids: Collection[str]) -> list[ErasedTable]:
    """The tables of a complete artifact that hold such rows. Verifies what it reads."""
    found = []
    for shard in artifact.manifest.shards:
        for file in shard.files:
            if not file.name.endswith(_TABLE):
                continue
            table = _read(artifact.path(shard, file.name))
            num = _num_rows(table, prompt_ids)
            if num or _without(table, prompt_ids, quotes=False) is not None:
                found.append(ErasedTable(shard.index, file.name, num))
    return found


def passages_to_erase(
    artifact: Artifact, tables: Collection[ErasedTable], prompt_ids: Collection[str]
) -> Iterator[Passage]:
    """All texts of the rows in these tables that are to be erased, but for names and reasons."""
    by_index = {shard.index: shard for shard in artifact.manifest.shards}
    for each in tables:
        table = _read(artifact.path(by_index[each.shard], each.name))
        if "prompt_id" not in table.column_names:
            continue
        for row in table.filter(_is_of(table, "prompt_id", prompt_ids)).to_pylist():
            for name, value in row.items():
                if isinstance(value, str) and name not in _NO_TEXTS and not name.endswith("_id"):
                    yield Passage(row["prompt_id"], value)


def erase_rows(
    artifact: Artifact,
    tables: Collection[ErasedTable],
    prompt_ids: Collection[str],
    scratch: Path,
) -> None:
    """Replace the shards of these tables by ones without the rows, and delete the earlier ones."""
    store, keys, manifest = artifact.store, artifact.keys, artifact.manifest
    affected = {each.shard for each in tables}
    shards = tuple(
        _put_again(artifact, shard, prompt_ids, scratch) if shard.index in affected else shard
        for shard in manifest.shards
    )
    erased = manifest.model_copy(update={"shards": shards, "erased_from": manifest.first_sha256})
    store.write(keys.manifest, erased.to_json())
    clean_up(store, keys, erased)
    logger.info("%s: erased %d rows", keys.root, sum(each.num_rows for each in tables))


def clean_up(store: Store, keys: ArtifactKeys, manifest: Manifest) -> None:
    """Make the records of a complete artifact those of its manifest, and delete all other files of
    its shards: of an erasure that was killed, and of workers that came too late."""
    named = {keys.record(shard.index) for shard in manifest.shards}
    for shard in manifest.shards:
        named |= {f"{keys.root}/{shard.folder}/{file.name}" for file in shard.files}
    for shard in manifest.shards:
        record = read_document(store, keys.record(shard.index), ShardRecord)
        if record is None or record.folder != shard.folder:
            plan = record.plan if record else None
            store.write(keys.record(shard.index), shard.model_copy(update={"plan": plan}).to_json())
    for key in [info.key for info in store.list(f"{keys.root}/shards/")]:
        if key not in named:
            store.delete(key)


def has_leftovers(store: Store, keys: ArtifactKeys, manifest: Manifest) -> bool:
    """Whether `clean_up` would change anything of a complete artifact's files."""
    num_named = len(manifest.shards) + sum(len(shard.files) for shard in manifest.shards)
    return sum(1 for _ in store.list(f"{keys.root}/shards/")) > num_named


def holds_rows(store: Store, keys: ArtifactKeys, prompt_ids: Collection[str], path: Path) -> bool:
    """Whether a table of an incomplete artifact has such rows, or cannot be read. `path` is that of
    a temporary file."""
    import pyarrow as pa

    for info in store.list(f"{keys.root}/shards/"):
        if info.key.endswith(_TABLE):
            store.download(info.key, path)
            try:
                if _num_rows(_read(path), prompt_ids):
                    return True
            except (pa.ArrowInvalid, OSError):
                return True
            finally:
                path.unlink()
    return False


def held_leases(store: Store, folders: Iterable[str]) -> list[str]:
    """Prefixes of the leases below `{folder}/{name}/leases/` that a process holds now."""
    watch = LeaseWatch()
    leases = {
        prefix: info
        for folder in folders
        for prefix, info in watch.survey(store, f"{folder}/").newest.items()
        if prefix.split("/")[2:3] == ["leases"]
    }
    return watch.held(store, sorted(leases), LeaseListing(leases, -math.inf))


def _put_again(
    artifact: Artifact, shard: ShardRecord, prompt_ids: Collection[str], scratch: Path
) -> ShardRecord:
    import pyarrow.parquet as pq

    local = scratch / artifact.keys.root / f"{shard.index:05d}"
    for file in shard.files:
        source, target = artifact.path(shard, file.name), local / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        erased = (
            _without(_read(source), prompt_ids, quotes=True) if file.name.endswith(_TABLE) else None
        )
        if erased is None:
            target.hardlink_to(source)
        else:
            pq.write_table(erased, target, compression="zstd")
    return upload_shard(artifact.store, artifact.keys, shard.index, local, shard.row_counts)


def _read(path: Path) -> "pa.Table":
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read()


def _is_of(table: "pa.Table", column: str, prompt_ids: Collection[str]) -> "pa.BooleanArray":
    """Which rows have one of the ids in this column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(table[column], value_set=pa.array(sorted(prompt_ids), pa.string()))


def _num_rows(table: "pa.Table", prompt_ids: Collection[str]) -> int:
    columns = [name for name in _IDS if name in table.column_names]
    return sum(table.filter(_is_of(table, name, prompt_ids)).num_rows for name in columns)


def _without(table: "pa.Table", prompt_ids: Collection[str], *, quotes: bool) -> "pa.Table | None":
    """The table without the rows and texts; None if it has none of them. `quotes`: also without
    `detail` of rows that are named by a line."""
    import pyarrow.compute as pc

    erased = table
    for name in _IDS:
        if name in erased.column_names:
            erased = erased.filter(pc.invert(_is_of(erased, name, prompt_ids)))
    if "exam_prompt_id" in erased.column_names:
        concerned = _is_of(erased, "exam_prompt_id", prompt_ids)
        erased = _emptied(erased, "shared", concerned)
    if quotes and {"row_id", "detail"} <= set(erased.column_names):
        erased = _emptied(erased, "detail", pc.starts_with(erased["row_id"], "line "))
    return None if erased.equals(table) else erased


def _emptied(table: "pa.Table", column: str, concerned: "pa.BooleanArray") -> "pa.Table":
    import pyarrow.compute as pc

    place = table.column_names.index(column)
    return table.set_column(place, table.field(place), pc.if_else(concerned, "", table[column]))
