"""`pvar rollback` and `pvar approve`: moves of the champion by people, kept in the history."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.commands.approve import approve
from flows.commands.rollback import rollback
from flows.run_record import NodeRecord, RunRecord, save_run
from pvar.config import PipelineConfig
from pvar.errors import InputError, ModelError, PromotionError
from pvar.ports import RegisteredVersion, Store
from tests.services.registry import MODEL, RegistryNeighbours

pytestmark = pytest.mark.slow  # MLflow sets up its database


@pytest.fixture
def neighbours(
    tmp_path: Path, file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> RegistryNeighbours:
    neighbours = RegistryNeighbours(tmp_path, file_store)
    for name, value in neighbours.environment().items():
        monkeypatch.setenv(name, value)
    return neighbours


def promoted(neighbours: RegistryNeighbours, count: int) -> list[RegisteredVersion]:
    versions = neighbours.versions(count)
    champion = None
    for version in versions:
        neighbours.registry().promote(version, instead_of=champion, reason="better")
        champion = version
    return versions


def test_rollback_returns_to_the_champion_before(
    neighbours: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(neighbours, 2)
    rollback(MODEL, reason="rude answers")
    assert neighbours.alias("champion") == 1
    assert "champion is version 1, it was version 2; move 3 by ana" in capsys.readouterr().out
    last = neighbours.registry().history(MODEL)[-1]
    assert (last.by, last.reason) == ("ana", "rude answers")


def test_rollback_to_a_version(
    neighbours: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(neighbours, 3)
    rollback(MODEL, to=1, reason="the one of spring", as_json=True)
    assert neighbours.alias("champion") == 1
    move = json.loads(capsys.readouterr().out)
    assert (move["number"], move["to_version"], move["reason"]) == (4, 1, "the one of spring")


def test_without_an_earlier_champion_rollback_says_what_to_do(
    neighbours: RegistryNeighbours,
) -> None:
    promoted(neighbours, 1)
    with pytest.raises(PromotionError) as refusal:
        rollback(MODEL, reason="?")
    assert str(refusal.value) == (
        f"{MODEL} had no champion before version 1; there is no other version"
    )
    neighbours.register("train/other")
    with pytest.raises(PromotionError) as refusal:
        rollback(MODEL, reason="?")
    assert str(refusal.value) == (
        f"{MODEL} had no champion before version 1; give a version: "
        f"pvar rollback {MODEL} --to VERSION --reason TEXT (its newest versions: 2)"
    )


def test_a_rollback_to_nothing_names_what_there_is(neighbours: RegistryNeighbours) -> None:
    neighbours.versions(7)
    with pytest.raises(ModelError, match=r"no models:/\S+/9; its newest versions: 3, 4, 5, 6, 7$"):
        rollback(MODEL, to=9, reason="a slip")
    with pytest.raises(ModelError, match=f"MLflow has no model 'nope'; there are {MODEL}"):
        rollback("nope", reason="a slip")
    neighbours.tracking().client.create_registered_model("bare")
    with pytest.raises(ModelError, match="no models:/bare@champion; it has no versions"):
        neighbours.registry().resolve("models:/bare@champion")
    with pytest.raises(PromotionError, match="bare had no champion; there is no other version"):
        rollback("bare", reason="too early")


def test_approval_makes_a_champion_and_keeps_the_note(neighbours: RegistryNeighbours) -> None:
    results = "evaluate/00000000000000bb"
    neighbours.register(
        "train/aa", gate="passed", opponent="bundled:start#start-1", results=results
    )
    approve(MODEL, 1, note="read fifty answers")
    assert neighbours.alias("champion") == 1
    (move,) = neighbours.registry().history(MODEL)
    assert (move.kind, move.by, move.reason) == (
        "promotion",
        "ana",
        f"approved: read fifty answers ({results})",
    )


def test_the_run_that_waits_names_its_version(
    neighbours: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    neighbours.register("train/aa", gate="passed", opponent="bundled:start#start-1")
    for run, artifact in (("20260101-a", "train/aa"), ("20260102-b", "train/bb")):
        record = RunRecord(
            run=run,
            started_at=datetime(2026, 1, 1, tzinfo=UTC),
            preset=None,
            config=PipelineConfig.model_validate({"promote": {"model_name": MODEL}}),
            mlflow_run="m",
            mlflow_experiment="1",
            nodes=(NodeRecord(name="train", artifact=artifact, state="made"),),
        )
        save_run(neighbours.store, record)
    with pytest.raises(InputError, match=f"run 20260102-b has registered no version of {MODEL}"):
        approve("latest", note="fine")
    approve("20260101", note="fine", as_json=True)
    assert neighbours.alias("champion") == 1
    decision = json.loads(capsys.readouterr().out)
    assert (decision["model"], decision["version"], decision["approved"]) == (MODEL, 1, True)


def test_a_declined_version_is_no_champion(
    neighbours: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    neighbours.register("train/aa", gate="passed", opponent="bundled:start#start-1")
    approve(MODEL, 1, note="too long", decline=True)
    assert capsys.readouterr().out == f"{MODEL}: version 1 is declined\n"
    assert neighbours.moves() == []


@pytest.mark.parametrize("first_declines", [True, False])
def test_a_second_decision_is_refused(neighbours: RegistryNeighbours, first_declines: bool) -> None:
    neighbours.register("train/aa", gate="passed", opponent="bundled:start#start-1")
    approve(MODEL, 1, note="quick", decline=first_declines)
    moves = neighbours.moves()
    how = "declined" if first_declines else "approved"
    for second_declines in (True, False):
        with pytest.raises(PromotionError, match=f"version 1 was already {how} by ana: quick"):
            approve(MODEL, 1, note="slow", decline=second_declines)
    assert neighbours.moves() == moves


def test_what_failed_the_gate_cannot_be_approved(neighbours: RegistryNeighbours) -> None:
    neighbours.register("train/aa", gate="failed", opponent="bundled:start#start-1")
    with pytest.raises(PromotionError, match=r"did not pass the gate .* pvar rollback"):
        approve(MODEL, 1, note="but I like it")
    with pytest.raises(PromotionError, match="has no version 7; it has 1"):
        approve(MODEL, 7, note="a slip")
    assert neighbours.alias("champion") is None


def test_approval_comes_too_late_when_another_champion_is_there(
    neighbours: RegistryNeighbours,
) -> None:
    neighbours.register("train/aa", gate="passed", opponent="bundled:start#start-1")
    neighbours.register("train/bb", gate="passed", opponent="bundled:start#start-1")
    approve(MODEL, 1, note="fine")
    with pytest.raises(PromotionError, match="version 2 was compared with start-1, but the champ"):
        approve(MODEL, 2, note="fine too")
    assert neighbours.alias("champion") == 1
