"""Reward models of a lost MLflow: every version again under its number, and the champion."""

import shutil
from pathlib import Path

import pytest

from flows.registry_rebuild import rebuild_registry
from flows.reward_versions import reward_versions
from flows.wiring import Wiring
from pvar.ports import Store
from tasks.stages.adopt import AdoptionRecord
from tasks.stages.promote import DECISION
from tests.artifacts import opened, put_artifact
from tests.services.registry import empty_database
from tests.workflow import open_wiring


def decision(version: int | None, artifact: str | None = None, **tags: str) -> AdoptionRecord:
    return AdoptionRecord(
        passed=True, checks=(), reasons=(), note="", figures={}, model_name="rewards",
        version=version, artifact=artifact, tags=tags, previous_version=None, opponent="o",
    )  # fmt: skip


def put(store: Store, record: AdoptionRecord, name: str) -> None:
    files = {DECISION: record.model_dump_json().encode()}
    put_artifact(store, "adopt", config={"name": name}, files=files)


def test_the_newest_decision_on_each_version_counts(
    file_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(file_store, decision(2, opponent="champion"), "a")
    put(file_store, decision(1), "b")
    put(file_store, decision(None), "nothing was trained")
    put_artifact(file_store, "adopt", config={"name": "damaged"}, files={DECISION: b"{}"})
    put(file_store, decision(2, opponent="newer champion"), "c")
    found = reward_versions(file_store, tmp_path)
    assert [(each.version, each.tags) for each in found] == [
        (1, {}),
        (2, {"opponent": "newer champion"}),
    ]
    assert "cannot be read, and its version is not known" in caplog.text


def open_home(folder: Path, store: Store) -> Wiring:
    folder.mkdir()
    shutil.copy(empty_database(), folder / "mlflow.db")
    return open_wiring(folder, store.uri)


@pytest.mark.slow  # MLflow
def test_versions_and_champion_of_a_lost_registry_are_made_again(
    file_store: Store, tmp_path: Path
) -> None:
    before = open_home(tmp_path / "before", file_store)
    for number in (1, 2):
        files = {"model/config.json": f'{{"seed": {number}}}'.encode()}
        keys = put_artifact(file_store, "reward", config={"seed": number}, files=files)
        folder = opened(file_store, keys, tmp_path).folder("model")
        version = before.registry.register("rewards", folder, keys.root, {"pvar.gate": "passed"})
        champion = before.registry.champion("rewards")
        before.registry.promote(version, instead_of=champion, reason="gate passed")
        put(file_store, decision(number, keys.root, **{"pvar.gate": "passed"}), str(number))

    after = open_home(tmp_path / "after", file_store)
    (rebuilt,) = rebuild_registry(after)
    assert (rebuilt.model_name, rebuilt.made, rebuilt.gone) == ("rewards", (1, 2), ())
    assert rebuilt.champion == 2
    assert after.registry.champion("rewards") == before.registry.champion("rewards")
    assert [facts.tags["pvar.gate"] for facts in after.registry.versions("rewards")] == [
        "passed",
        "passed",
    ]
