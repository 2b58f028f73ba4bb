"""The files of a shard: put into the store in a folder that is named by their content."""

import hashlib
from pathlib import Path

from pvar.artifacts import FileRecord, ShardRecord
from pvar.ports import Store
from pvar.row_counts import RowCounts
from tasks.engine.artifact import ArtifactKeys, sha256_of
from tasks.engine.tables import num_rows


def upload_shard(
    store: Store, keys: ArtifactKeys, shard: int, local: Path, row_counts: RowCounts
) -> ShardRecord:
    """Upload all files of a local folder as one shard, and return its record, which is not put."""
    paths = sorted(path for path in local.rglob("*") if path.is_file())
    files = tuple(
        FileRecord(
            name=path.relative_to(local).as_posix(),
            num_bytes=path.stat().st_size,
            sha256=sha256_of(path),
            rows=num_rows(path) if path.suffix == ".parquet" else None,
        )
        for path in paths
    )
    content = hashlib.sha256("".join(f"{file.name} {file.sha256}\n" for file in files).encode())
    folder = f"shards/{shard:05d}-{content.hexdigest()[:12]}"
    for path, file in zip(paths, files, strict=True):
        store.upload(path, f"{keys.root}/{folder}/{file.name}")
    return ShardRecord(index=shard, folder=folder, files=files, row_counts=row_counts)
