"""The figures of a round, from the artifacts of its run."""

import hashlib
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from flows.round_results import read_round
from flows.run_record import RunRecord
from pvar.artifacts import FileRecord, Manifest, ShardRecord
from pvar.ports import RegisteredVersion
from tasks.stages.promote import DECISION, PromotionRecord
from tests.artifacts import ONE_ROW
from tests.workflow import Workflow, start_workflow

FIRST, OWN, NEWER = (RegisteredVersion("pvar", number, f"train/{number}") for number in (1, 2, 3))


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    flow = start_workflow(tmp_path_factory.mktemp("round"))
    flow.make("ingest", "sample", "score-vader", "select")
    put(flow, "evaluate", {"rows.txt": b"row"})
    return flow


def put(flow: Workflow, name: str, files: dict[str, bytes]) -> None:
    """A complete artifact of the node, without its work."""
    keys, folder = flow.nodes[name].keys, "shards/00000-0123456789ab"
    for file, data in files.items():
        flow.store.write(f"{keys.root}/{folder}/{file}", data)
    records = tuple(
        FileRecord(name=file, num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for file, data in files.items()
    )
    shard = ShardRecord(index=0, folder=folder, files=records, row_counts=ONE_ROW)
    manifest = Manifest(
        stage=keys.stage, version=1, digest=keys.digest, inputs={}, shards=(shard,), summary={},
        row_counts=ONE_ROW,
    )  # fmt: skip
    flow.store.write(keys.manifest, manifest.to_json())


@pytest.mark.parametrize(
    ("decision", "champion", "fate"),
    [
        ({}, OWN, "promoted"),
        ({}, FIRST, "replaced"),  # rolled back
        ({}, NEWER, "replaced"),
        ({}, None, "replaced"),  # the alias was removed
        ({"promoted": False}, FIRST, "declined"),
        ({"passed": False, "promoted": False}, FIRST, "failed"),
        ({"passed": False, "promoted": False}, OWN, "failed"),  # promoted by hand
    ],
)
def test_a_version_counts_as_promoted_while_it_is_the_champion(
    flow: Workflow, decision: dict[str, Any], champion: RegisteredVersion | None, fate: str
) -> None:
    kept = {"passed": True, "promoted": True, "decision": None, "checks": (), "note": ""}
    named = {"model_name": "pvar", "version": OWN.version, "previous_version": 1}
    record = PromotionRecord.model_validate(kept | named | decision)
    put(flow, "promote", {DECISION: record.model_dump_json().encode()})
    registry = SimpleNamespace(champion=lambda _: champion)
    wiring: Any = SimpleNamespace(
        store=flow.store, settings=flow.wiring.settings, registry=registry
    )
    run = RunRecord(
        run="r", started_at=datetime(2026, 3, 10, tzinfo=UTC), preset=None, config=flow.config,
        mlflow_run="", mlflow_experiment="", nodes=(),
    )  # fmt: skip
    result = read_round(1, run, None, wiring)
    assert (result.fate, result.promoted) == (fate, fate == "promoted")
