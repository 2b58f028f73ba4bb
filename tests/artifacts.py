"""Complete artifacts without the stages that make them, and one stage over such inputs."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, JsonValue

from pvar.artifacts import FileRecord, Manifest, Recipe, ShardRecord, ShardSpec, Summary
from pvar.ports import Ports, Store
from pvar.references import Reference, ReferenceKind
from pvar.row_counts import RowCounts
from pvar.runtime_config import RuntimeConfig
from tasks.engine.artifact import Artifact, ArtifactKeys, open_artifact
from tasks.engine.node import Node
from tasks.engine.stage import Job, Stage, run_stage
from tasks.engine.tables import write_table

ONE_ROW = RowCounts(rows_in=1, rows_out=1)


REFERENCES: Mapping[str, ReferenceKind] = {
    "source": "data",
    "decontaminate_against": "data",
    "policy": "model",
    "opponent": "model",
}
"""Fields of a made-up configuration that hold digests of references."""


def _references(config: Mapping[str, JsonValue]) -> Iterator[Reference]:
    for name, value in config.items():
        if name in REFERENCES:
            for text in value if isinstance(value, list) else [value]:
                yield Reference(name, REFERENCES[name], str(text))


def put_artifact(
    store: Store,
    stage: str,
    *,
    config: Mapping[str, JsonValue] | None = None,
    inputs: Mapping[str, ArtifactKeys] | None = None,
    files: Mapping[str, bytes] | None = None,
    summary: Summary | None = None,
    row_counts: RowCounts = ONE_ROW,
    is_complete: bool = True,
) -> ArtifactKeys:
    """Write recipe, one shard and (if complete) the manifest, as `tasks/engine/stage.py` does."""
    recipe = Recipe(
        stage=stage,
        version=1,
        identity=dict(config or {}),
        references=tuple(_references(config or {})),
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
    shard = ShardRecord(index=0, folder=folder, files=records, row_counts=row_counts)
    store.write(keys.record(0), shard.to_json())
    if is_complete:
        manifest = Manifest(
            stage=stage,
            version=1,
            digest=keys.digest,
            inputs={},
            shards=(shard,),
            row_counts=row_counts,
            summary=summary or {},
        )
        store.write(keys.manifest, manifest.to_json())
    return keys


def opened(store: Store, keys: ArtifactKeys, cache: Path) -> Artifact:
    """A complete artifact, as an input of a stage."""
    return open_artifact(store, keys.stage, keys.digest, cache)


@dataclass(frozen=True)
class Replaced:
    """Ports of which some are the test's own."""

    ports: Ports
    own: Mapping[str, object]

    def __getattr__(self, name: str) -> Any:
        return self.own[name] if name in self.own else getattr(self.ports, name)


@dataclass(frozen=True)
class StageBench:
    """One stage over inputs that a test writes row by row."""

    ports: Ports
    folder: Path

    def put(
        self, stage: str, name: str, rows: Sequence[Any], record: type[NamedTuple]
    ) -> ArtifactKeys:
        """A complete artifact of one table."""
        path = self.folder / name
        num_rows = write_table(path, rows, record)
        data = path.read_bytes()
        return put_artifact(
            self.ports.store,
            stage,
            config={"content": hashlib.sha256(data).hexdigest()},
            files={name: data},
            row_counts=RowCounts(rows_in=num_rows, rows_out=num_rows),
        )

    def run(
        self,
        stage: Stage[Any],
        spec: BaseModel,
        inputs: Mapping[str, ArtifactKeys],
        **own_ports: object,
    ) -> Artifact:
        """The artifact that the stage makes of these inputs."""
        node = Node(stage.name, stage, spec, inputs)
        job = Job(
            spec=spec,
            runtime=RuntimeConfig(
                sampled_responses_per_shard=4 * getattr(spec, "num_responses", 1),
                responses_per_shard=4,
                lease_seconds=60,
            ),
            inputs={
                name: opened(self.ports.store, keys, self.folder / "inputs")
                for name, keys in inputs.items()
            },
            ports=Replaced(self.ports, own_ports),
            keys=node.keys,
            scratch=self.folder,
            log_step=lambda step, figures: None,
        )
        return run_stage(stage, node.recipe, job).artifact
