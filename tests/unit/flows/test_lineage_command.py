"""`pvar lineage`: registered versions are part of the graph."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from flows.commands.lineage import lineage
from flows.run_record import NodeRecord, RunRecord, save_run
from pvar.config import PipelineConfig
from pvar.errors import InputError, ModelError
from pvar.ports import Store
from tasks.engine.artifact import ArtifactKeys
from tests.artifacts import put_artifact
from tests.services.registry import MODEL, RegistryNeighbours


class Made(NamedTuple):
    neighbours: RegistryNeighbours
    ingest: ArtifactKeys
    train: ArtifactKeys
    evaluate: ArtifactKeys


@pytest.fixture
def made(tmp_path: Path, file_store: Store, monkeypatch: pytest.MonkeyPatch) -> Made:
    neighbours = RegistryNeighbours(tmp_path, file_store)
    for name, value in neighbours.environment().items():
        monkeypatch.setenv(name, value)
    ingest = put_artifact(file_store, "ingest", config={"source": "sha256-1"})
    train = put_artifact(
        file_store, "train", config={"policy": "start-1"}, inputs={"pairs": ingest}
    )
    evaluate = put_artifact(file_store, "evaluate", inputs={"prompts": ingest, "challenger": train})
    version = neighbours.register(train.root, results=evaluate.root)
    neighbours.registry().promote(version, instead_of=None, reason="better")
    return Made(neighbours, ingest, train, evaluate)


@pytest.mark.parametrize("reference", [f"models:/{MODEL}/1", f"models:/{MODEL}@champion"])
def test_a_version_leads_back_to_the_data(
    made: Made, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lineage(reference, as_json=True)
    tree = json.loads(capsys.readouterr().out)["made_from"]
    assert tree["ref"] == f"models:/{MODEL}/1"
    model, results = tree["branches"]
    assert (model["role"], model["ref"]) == ("model", made.train.root)
    assert (results["role"], results["ref"]) == ("results", made.evaluate.root)
    pairs, policy = model["branches"]
    assert pairs["ref"] == made.ingest.root
    assert [leaf["ref"] for leaf in pairs["branches"]] == ["sha256-1"]
    assert (policy["ref"], policy["state"]) == ("start-1", "outside")


def test_a_version_that_is_not_ours_leads_to_what_was_made_from_it(
    made: Made, file_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = made.neighbours.tracking().client
    client.create_registered_model("theirs")
    client.create_model_version("theirs", source="/somewhere/model")
    digest = made.neighbours.registry().resolve("models:/theirs/1").digest
    sample = put_artifact(file_store, "sample", config={"policy": digest})
    lineage("models:/theirs/1", as_json=True)
    tree = json.loads(capsys.readouterr().out)["made_into"]
    assert [(each["role"], each["ref"]) for each in tree["branches"]] == [("policy", sample.root)]


def test_data_lead_forward_to_the_version(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    lineage(made.ingest.root, as_json=True)
    tree = json.loads(capsys.readouterr().out)["made_into"]

    def refs(step: dict[str, object]) -> set[object]:
        branches = step["branches"]
        assert isinstance(branches, list)
        return {step["ref"]}.union(*(refs(branch) for branch in branches))

    assert refs(tree) == {
        made.ingest.root,
        made.train.root,
        made.evaluate.root,
        f"models:/{MODEL}/1",
    }


def test_the_trees_for_people(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    lineage(made.train.root[:12])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{made.train.root}, made from"
    assert lines[1].endswith(f"pairs: {made.ingest.root}")
    assert any(line.endswith(f"model: models:/{MODEL}/1") for line in lines)
    assert any(line.endswith(f"results: models:/{MODEL}/1") for line in lines)


@pytest.mark.usefixtures("made")
def test_what_does_not_exist_is_an_error() -> None:
    with pytest.raises(ModelError, match=f"MLflow has no models:/{MODEL}/9"):
        lineage(f"models:/{MODEL}/9")
    with pytest.raises(InputError, match=r"'train/0000' is not in .*; there are .*train/"):
        lineage("train/0000")
    with pytest.raises(InputError, match="has no runs yet; start one"):
        lineage("latest")


def test_an_artifact_is_named_by_its_digest_alone_or_by_a_run(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    store, at = made.neighbours.store, datetime(2026, 1, 1, tzinfo=UTC)
    nodes = [
        NodeRecord(name="pairs", artifact=made.ingest.root, state="reused"),
        NodeRecord(name="train", artifact=made.train.root, state="made"),
        NodeRecord(name="evaluate", artifact="evaluate/0000000000000000", state="failed"),
    ]
    for name in ("20260101-120000-aaaa", "20260102-120000-bbbb"):
        record = RunRecord(
            run=name,
            started_at=at,
            preset=None,
            config=PipelineConfig(),
            mlflow_run="m",
            mlflow_experiment="1",
            nodes=tuple(nodes) if "b" in name else (),
        )
        save_run(store, record)
    for text in (made.train.digest[:6], "latest", "20260102"):
        lineage(text, as_json=True)
        assert json.loads(capsys.readouterr().out)["made_from"]["ref"] == made.train.root
    with pytest.raises(InputError, match=r"'2026010' begins 2 of them: 20260101-120000-aaaa, "):
        lineage("2026010")
    with pytest.raises(InputError, match="no artifact that run 20260101-120000-aaaa completed"):
        lineage("20260101")
