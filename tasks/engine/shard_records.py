"""Which shards of an artifact have a record, and whether their files are there."""

from collections.abc import Mapping, Sequence

from pvar.artifacts import ShardRecord, ShardSpec
from pvar.ports import Store
from tasks.engine.artifact import ArtifactKeys, discard_shard, read_document
from tasks.engine.stale_artifact import refuse_other_plan


def sizes_of(store: Store, keys: ArtifactKeys) -> dict[str, int]:
    """Size by key of all objects of the shards, from one listing."""
    return {info.key: info.num_bytes for info in store.list(f"{keys.root}/shards/")}


def is_intact(keys: ArtifactKeys, record: ShardRecord, sizes: Mapping[str, int]) -> bool:
    """Whether all files of a shard are there with their sizes."""
    folder = f"{keys.root}/{record.folder}/"
    return all(sizes.get(f"{folder}{file.name}") == file.num_bytes for file in record.files)


def missing_shards(
    store: Store,
    keys: ArtifactKeys,
    plan: str,
    shards: Sequence[ShardSpec],
    records: dict[int, ShardRecord],
) -> list[ShardSpec]:
    """Those without a record of this plan, or with a damaged one; the records of the others go to
    `records`.

    One listing, and a read per record. Discards nothing: only the holder of a shard's lease does.
    """
    sizes = sizes_of(store, keys) if shards else {}
    missing = []
    for shard in shards:
        key = keys.record(shard.index)
        record = read_document(store, key, ShardRecord) if key in sizes else None
        if record is not None and record.is_of(plan) and is_intact(keys, record, sizes):
            records[shard.index] = record
        else:
            missing.append(shard)
    return missing


def is_recorded(
    store: Store,
    keys: ArtifactKeys,
    plan: str,
    shard: ShardSpec,
    records: dict[int, ShardRecord],
) -> bool:
    """Whether a shard, whose lease is held, has a record of this plan with its files.

    Discards a damaged one, and one of another plan: of a process that was stopped since before the
    artifact was begun anew. StageError if this process is the one that was stopped.
    """
    record = read_document(store, keys.record(shard.index), ShardRecord)
    if record is None:
        return False
    if not record.is_of(plan):
        refuse_other_plan(store, keys, plan)
    folder = f"{keys.root}/{record.folder}/"
    sizes = {info.key: info.num_bytes for info in store.list(folder)}
    if record.is_of(plan) and is_intact(keys, record, sizes):
        records[shard.index] = record
        return True
    discard_shard(store, keys, shard.index)
    return False
