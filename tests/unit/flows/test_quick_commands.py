"""What a command that makes nothing does without: heavy libraries, a server, one request a run."""

import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.complete_runs import complete_run
from flows.garbage_collection import plan_sweep
from flows.model_lineage import trace
from flows.pinning import pin
from flows.promotions import read_history
from flows.run_record import NodeRecord, RunRecord, newest_runs, save_run
from flows.server import has_configured_server
from flows.wiring import Wiring, connect
from infra.registered_models import ARTIFACT_TAG
from infra.settings import Settings
from infra.store import open_store
from infra.store.s3_store import S3Store
from pvar.artifacts import FileRecord, Manifest, ShardRecord, Summary
from pvar.config import PipelineConfig
from pvar.row_counts import RowCounts
from tasks.engine.artifact import read_document
from tests.artifacts import put_artifact
from tests.services.registry import MODEL, RegistryNeighbours
from tests.services.s3 import S3Server
from tests.workflow import Workflow, fake_settings, start_workflow, write_prompts

ROOT = Path(__file__).parents[3]

HEAVY = {"mlflow", "prefect", "torch", "transformers", "scipy", "sklearn", "matplotlib"}
HEAVY |= {
    "sqlalchemy",
    "alembic",
    "datasets",
    "duckdb",
    "boto3",
    "openai",
    "flows.temporary_server",
}

SUMMARIES: dict[str, Summary] = {
    "select": {"num_selected": 1, "num_prompts": 2, "pvar_mean": 0.1, "pvar_mean_selected": 0.2},
    "evaluate": {
        "win_rate": 0.6,
        "win_rate_lower": 0.5,
        "win_rate_upper": 0.7,
        "num_judged": 3,
        "num_wanted": 3,
        "num_ability_questions": None,
        "opponent_mean_length_tokens": 5.0,
        "challenger_mean_length_tokens": 6.0,
        "opponent_ended_share": 1.0,
        "challenger_ended_share": 1.0,
    },
    "promote": {"gate_passed": True, "version": 1, "promoted": True, "decision": None},
}
"""The figures that the last lines of a run need."""


def complete(flow: Workflow) -> Workflow:
    """The workflow with an artifact of one file for each node that has none, as after a run."""
    for node in flow.nodes.values():
        keys = node.keys
        if read_document(flow.store, keys.manifest, Manifest) is not None:
            continue
        made_from = {}
        for name, used in node.inputs.items():
            manifest = read_document(flow.store, used.manifest, Manifest)
            assert manifest is not None
            made_from[name] = manifest.first_sha256
        shard = ShardRecord(
            index=0,
            folder="shards/00000-00",
            files=(FileRecord(name="rows.txt", num_bytes=4, sha256="00"),),
            row_counts=RowCounts(rows_in=1, rows_out=1),
        )
        manifest = Manifest(
            stage=keys.stage,
            version=node.stage.version,
            digest=keys.digest,
            inputs=made_from,
            shards=(shard,),
            row_counts=shard.row_counts,
            summary=SUMMARIES.get(node.name, {}),
        )
        flow.store.write(f"{keys.root}/shards/00000-00/rows.txt", b"row\n")
        flow.store.write(keys.manifest, manifest.to_json())
    return flow


def record_of(flow: Workflow, **changes: Any) -> RunRecord:
    """The record of a run of the workflow that has ended."""
    nodes = [
        NodeRecord(name=node.name, artifact=node.keys.root, state="made")
        for node in flow.nodes.values()
    ]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    record = RunRecord(
        run="20260101-120000-aaaa",
        started_at=at,
        finished_at=at,
        preset=None,
        config=flow.config,
        mlflow_run="m",
        mlflow_experiment="1",
        nodes=tuple(nodes),
    )
    return record.model_copy(update=changes)


def configuration(flow: Workflow, **changes: Any) -> PipelineConfig:
    """The workflow's configuration as a user gives it, not pinned."""
    source = flow.wiring.settings.home / "prompts.jsonl"
    return PipelineConfig.model_validate(fake_settings(source, **changes))


def test_a_run_is_complete_if_it_ended_and_all_of_its_artifacts_are_there(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    config, wiring, record = configuration(flow), flow.wiring, record_of(flow)
    assert complete_run(config, wiring) is None
    complete(flow)
    assert complete_run(config, wiring) is None  # no run that could be shown
    save_run(flow.store, record.model_copy(update={"finished_at": None}))
    assert complete_run(config, wiring) is None
    save_run(flow.store, record)
    found = complete_run(config, wiring)
    assert found is not None
    assert (found.run, {node.state for node in found.nodes}) == (record.run, {"reused"})
    assert complete_run(configuration(flow, **{"runtime.lease_seconds": 30}), wiring) is not None
    assert complete_run(configuration(flow, **{"sample.seed": 1}), wiring) is None

    select = flow.nodes["select"]
    flow.store.write(f"{select.keys.root}/shards/00000-00/rows.txt", b"damaged")
    assert complete_run(config, wiring) is None


def test_a_failed_run_is_not_a_complete_one(tmp_path: Path) -> None:
    flow = complete(start_workflow(tmp_path))
    record = record_of(flow)
    failed = record.nodes[-1].model_copy(update={"state": "failed", "error": "no"})
    save_run(flow.store, record.with_node(failed))
    assert complete_run(configuration(flow), flow.wiring) is None


def test_a_configured_server_is_seen_without_prefect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_PROFILE", raising=False)
    monkeypatch.delenv("PREFECT_PROFILES_PATH", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    assert not has_configured_server()
    profiles = tmp_path / "prefect/profiles.toml"
    profiles.parent.mkdir()
    profiles.write_text('active = "b"\n[profiles.a]\nPREFECT_API_URL = "http://h"\n[profiles.b]\n')
    assert not has_configured_server()
    monkeypatch.setenv("PREFECT_PROFILE", "a")
    assert has_configured_server()
    monkeypatch.setenv("PREFECT_PROFILE", "b")
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['prefect']\n")
    assert not has_configured_server()
    (tmp_path / "pyproject.toml").write_text("[tool.prefect.api]\nurl = 'http://h'\n")
    assert has_configured_server()
    (tmp_path / "pyproject.toml").unlink()
    profiles.write_text("no TOML")
    assert has_configured_server()  # Prefect says what is wrong with it
    profiles.unlink()
    monkeypatch.setenv("PREFECT_API_URL", "http://h")
    assert has_configured_server()


SCRIPT = """
import sys
from flows.cli import main
preset, model = sys.argv[1:]
def call(line):
    try:
        main(line)
    except SystemExit as end:
        assert not end.code
for line in (
    ["show", "--preset", preset],
    ["history", model],
    ["lineage", f"models:/{model}@champion"],
    ["gc"],
    ["stage", "sample", "--preset", preset],
    ["run", "--preset", preset],
):
    call(line)
    print("==", line[0], *sorted(sys.modules.keys() & HEAVY))
call(["stage", "sample", "--preset", preset, "--set", "sample.seed=1"])
from flows import api
print("started from Python:", api.load(preset).start().run)
print("without Prefect:", not sys.modules.keys() & {"prefect", "flows.temporary_server"})
call(["retrain", "--preset", preset])
print("without a server:", "flows.temporary_server" not in sys.modules)
"""


@pytest.mark.slow  # MLflow sets up its database
def test_commands_that_make_nothing_load_no_heavy_library_and_start_no_server(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    neighbours = RegistryNeighbours(tmp_path, open_store(str(home / "store")))
    (first,) = neighbours.versions(1)
    neighbours.registry().promote(first, instead_of=None, reason="better")
    settings = Settings(
        home=home, store_uri=neighbours.store.uri, mlflow_tracking_uri=neighbours.address
    )
    tree = fake_settings(
        write_prompts(home / "prompts.jsonl"),
        **{"evaluate.opponent": "champion", "promote.model_name": MODEL},
    )
    wiring = connect(settings)
    flow = Workflow(pin(PipelineConfig.model_validate(tree), wiring), wiring)
    flow.make("ingest", "sample", "score-vader", "select")  # their tables are read
    save_run(flow.store, record_of(complete(flow)))
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump(tree))
    environment = {
        "PVAR_HOME": str(settings.home),
        "PVAR_STORE_URI": settings.store_uri,
        "PVAR_MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY}\n{SCRIPT}", str(preset), MODEL],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    commands = ("show", "history", "lineage", "gc", "stage", "run")
    assert [line for line in done.stdout.splitlines() if line.startswith("== ")] == [
        f"== {name}" for name in commands
    ]
    assert "run 20260101-120000-aaaa: 10 of 10 artifacts reused" in done.stdout
    assert "nothing was started or recorded" in done.stdout
    assert f"sample: {flow.nodes['sample'].keys.root} reused" in done.stdout
    assert re.search(r"^sample: sample/\w{16} made in .* s$", done.stdout, re.MULTILINE)
    assert re.search(r"^answers-opponent: sample/\w{16} reused$", done.stdout, re.MULTILINE)
    assert "answers-challenger: waits for train; run pvar stage score --preset" in done.stdout
    assert "started from Python: 20260101-120000-aaaa" in done.stdout
    assert "without Prefect: True" in done.stdout
    assert "no run: " in done.stderr
    assert "without a server: True" in done.stdout
    assert newest_runs(flow.store, 2) == ["20260101-120000-aaaa"]


@pytest.mark.slow  # MLflow sets up its database
def test_requests_to_s3_grow_by_one_read_for_what_must_be_read(
    moto_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes, records and moves are read, each once; what a listing says is asked of no object."""
    bucket = moto_s3.new_bucket()
    store = open_store(f"s3://{bucket}/artifacts", access=moto_s3.access())
    neighbours = RegistryNeighbours(tmp_path, store)
    wiring = Wiring(
        Settings(home=tmp_path, store_uri=store.uri, mlflow_tracking_uri=neighbours.address),
        store,
        neighbours.tracking(),
        neighbours.registry(),
    )
    requests: Counter[str] = Counter()

    def count(event_name: str, **_: object) -> None:
        requests[event_name.rpartition(".")[2]] += 1

    assert isinstance(store, S3Store)
    store._client.meta.events.register("before-call.s3", count)
    steps = {
        "history": lambda: read_history(neighbours.registry(), MODEL),
        "lineage": lambda: trace(f"models:/{MODEL}/1", wiring),
        "gc": lambda: plan_sweep(wiring, keep_runs=None),
    }
    for name, value in moto_s3.environment().items():
        monkeypatch.setenv(name, value)
    client = neighbours.tracking().client
    client.create_registered_model(MODEL)
    found: dict[str, list[dict[str, int]]] = {name: [] for name in steps}
    for number in (1, 2, 3):
        keys = put_artifact(store, "train", config={"number": number})
        files = f"mlflow/models/m-{number}/artifacts"
        store.write(f"{files}/config.json", b"{}")
        client.create_model_version(MODEL, f"{store.uri}/{files}", tags={ARTIFACT_TAG: keys.root})
        registry = neighbours.registry()
        version = registry.resolve(f"models:/{MODEL}/{number}")
        registry.promote(version, instead_of=registry.champion(MODEL), reason="better")
        store.write(f"runs/2026010{number}.json", b'{"nodes": []}')
        for name, step in steps.items():
            requests.clear()
            step()
            found[name].append(dict(requests))
    growth = {
        name: [
            (
                later.get("GetObject", 0) - earlier.get("GetObject", 0),
                later["ListObjectsV2"] - earlier["ListObjectsV2"],
            )
            for earlier, later in pairwise(counts)
        ]
        for name, counts in found.items()
    }
    assert growth == {
        "history": [(1, 0)] * 2,  # the move
        "lineage": [(1, 0)] * 2,  # the recipe
        "gc": [(2, 0)] * 2,  # the recipe and the run's record
    }
