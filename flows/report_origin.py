"""Where the artifacts of a run are, and what they were made with, for its report."""

from collections.abc import Mapping

from pvar.machine import MACHINES, Machine
from pvar.ports import Store
from tasks.engine.artifact import Artifact, read_document
from tasks.report.data import MachineRow, StoredFile


def stored_files(artifact: Artifact) -> tuple[StoredFile, ...]:
    """The files of an artifact, with their addresses."""
    root = f"{artifact.store.uri}/{artifact.keys.root}"
    return tuple(
        StoredFile(f"{root}/{name}", name, file.rows, file.num_bytes)
        for shard in artifact.manifest.shards
        for file in shard.files
        for name in (f"{shard.folder}/{file.name}",)
    )


def machines(artifacts: Mapping[str, Artifact]) -> tuple[MachineRow, ...]:
    """The machines that made these artifacts, by node, in the order of the nodes. Artifacts of
    earlier versions of pvar have none on record."""
    rows: dict[str, MachineRow] = {}
    for node, artifact in artifacts.items():
        for each in _of(artifact.store, artifact.keys.root) or (Machine(hardware="", versions={}),):
            row = rows.get(each.key) or MachineRow((), each.hardware or None, each.versions)
            rows[each.key] = row._replace(nodes=(*row.nodes, node))
    return tuple(rows.values())


def _of(store: Store, root: str) -> list[Machine]:
    keys = sorted(info.key for info in store.list(f"{root}/{MACHINES}/"))
    found = (read_document(store, key, Machine) for key in keys)
    return [machine for machine in found if machine is not None]
