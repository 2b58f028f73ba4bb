"""`pvar lineage`: registered versions are part of the graph."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from flows.commands.lineage import lineage
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
    with pytest.raises(InputError, match="is not in the store"):
        lineage("train/0000")
