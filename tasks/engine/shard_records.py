"""Which shards of an artifact have a record, and whether their files are there."""

from collections.abc import Mapping, Sequence

from pvar.artifacts import ShardRecord, ShardSpec
from pvar.ports import Store
from tasks.engine.artifact import ArtifactKeys, discard_shard, read_document


def sizes_of(store: Store, keys: ArtifactKeys) -> dict[str, int]:
    """Size by key of all objects of the shards, from one listing."""
    return {info.key: info.num_bytes for info in store.list(f"{keys.root}/shards/")}


def is_intact(keys: ArtifactKeys, record: ShardRecord, sizes: Mapping[str, int]) -> bool:
    """Whether all files of a shard are there with their sizes."""
    folder = f"{keys.root}/{record.folder}/"
    return all(sizes.get(f"{folder}{file.name}") == file.num_bytes for file in record.files)


def missing_shards(
    store: Store, keys: ArtifactKeys, shards: Sequence[ShardSpec], records: dict[int, ShardRecord]
) -> list[ShardSpec]:
    """Those without a record, or with a damaged one; the records of the others go to `records`.

    One listing, and a read per record. Discards nothing: only the holder of a shard's lease does.
    """
    sizes = sizes_of(store, keys) if shards else {}
    missing = []
    for shard in shards:
        key = keys.record(shard.index)
        record = read_document(store, key, ShardRecord) if key in sizes else None
        if record is not None and is_intact(keys, record, sizes):
            records[shard.index] = record
        else:
            missing.append(shard)
    return missing


def is_recorded(
    store: Store, keys: ArtifactKeys, shard: ShardSpec, records: dict[int, ShardRecord]
) -> bool:
    """Whether a shard, whose lease is held, has a record with its files. Discards a damaged one."""
    record = read_document(store, keys.record(shard.index), ShardRecord)
    if record is None:
        return False
    folder = f"{keys.root}/{record.folder}/"
    if is_intact(keys, record, {info.key: info.num_bytes for info in store.list(folder)}):
        records[shard.index] = record
        return True
    discard_shard(store, keys, shard.index)
    return False
