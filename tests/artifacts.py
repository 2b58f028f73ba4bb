"""Complete artifacts for tests, without running the stages that make them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from pvar.accounts import Accounts
from pvar.artifacts import FileRecord, Manifest, Recipe, ShardRecord, ShardSpec, Summary
from pvar.ports import Store
from tasks.artifact import Artifact, ArtifactKeys, open_artifact


def put_artifact(
    store: Store,
    stage: str,
    *,
    config: Mapping[str, JsonValue] | None = None,
    inputs: Mapping[str, ArtifactKeys] | None = None,
    files: Mapping[str, bytes] | None = None,
    summary: Summary | None = None,
    is_complete: bool = True,
) -> ArtifactKeys:
    """Write recipe, one shard and (if complete) the manifest, as `tasks/stage.py` does."""
    recipe = Recipe(
        stage=stage,
        version=1,
        config=dict(config or {}),
        inputs={name: keys.digest for name, keys in (inputs or {}).items()},
        shards=(ShardSpec(index=0, start=0, stop=0),),
    )
    keys = ArtifactKeys(stage, recipe.digest)
    store.write(keys.recipe, recipe.to_json())
    contents = files or {"rows.txt": b"row\n"}
    folder = "shards/00000-0123456789ab"
    for name, data in contents.items():
        store.write(f"{keys.root}/{folder}/{name}", data)
    records = tuple(
        FileRecord(name=name, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    )
    accounts = Accounts(rows_in=1, rows_out=1)
    shard = ShardRecord(index=0, folder=folder, files=records, accounts=accounts)
    store.write(keys.record(0), shard.to_json())
    if is_complete:
        manifest = Manifest(
            stage=stage,
            version=1,
            digest=keys.digest,
            inputs={},
            shards=(shard,),
            accounts=accounts,
            summary=summary or {},
        )
        store.write(keys.manifest, manifest.to_json())
    return keys


def opened(store: Store, keys: ArtifactKeys, cache: Path) -> Artifact:
    """A complete artifact, as an input of a stage."""
    return open_artifact(store, keys.stage, keys.digest, cache)
