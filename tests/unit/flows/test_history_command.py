"""`pvar history`: the champion's moves, with the results that each version had."""

import json
from pathlib import Path

import pytest

from flows.commands.history import history
from pvar.errors import ModelError
from pvar.ports import Store
from tests.services.registry import MODEL, RegistryNeighbours

pytestmark = pytest.mark.slow  # MLflow sets up its database

RESULTS = {"win_rate": "0.6100", "win_rate_lower": "0.5300", "win_rate_upper": "0.6800"}


@pytest.fixture
def neighbours(
    tmp_path: Path, file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> RegistryNeighbours:
    neighbours = RegistryNeighbours(tmp_path, file_store)
    for name, value in {**neighbours.environment(), "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    return neighbours


@pytest.fixture
def rolled_back(neighbours: RegistryNeighbours) -> RegistryNeighbours:
    first = neighbours.register("train/aa", **RESULTS)
    second = neighbours.register("train/bb", win_rate="nan")
    registry = neighbours.registry()
    registry.promote(first, instead_of=None, reason="gate passed: promote/01")
    registry.promote(second, instead_of=first, reason="gate passed: promote/02")
    registry.roll_back(MODEL, reason="rude [answers]", by="bo@laptop")
    return neighbours


@pytest.mark.usefixtures("rolled_back")
def test_json_has_who_when_from_to_why_and_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    history(MODEL, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [row["number"] for row in rows] == [1, 2, 3]
    assert [(row["from_version"], row["to_version"]) for row in rows] == [
        (None, 1),
        (1, 2),
        (2, 1),
    ]
    assert [row["kind"] for row in rows] == ["promotion", "promotion", "rollback"]
    assert [row["by"] for row in rows] == ["ana", "ana", "bo@laptop"]
    assert rows[2]["reason"] == "rude [answers]"
    assert rows[0]["at"] < rows[1]["at"] < rows[2]["at"]
    # A figure that could not be had is null, not zero and not NaN.
    assert [row["win_rate"] for row in rows] == [0.61, None, 0.61]
    assert [row["win_rate_lower"] for row in rows] == [0.53, None, 0.53]


@pytest.mark.usefixtures("rolled_back")
def test_the_table_shows_the_same_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    history(MODEL)
    lines = capsys.readouterr().out.splitlines()
    assert "61.0% (53.0%–68.0%)" in lines[1]
    assert "no results" in lines[2]
    assert "bo@laptop" in lines[3]
    assert "rollback: rude [answers]" in lines[3]


def test_a_move_by_hand_shows_at_the_next_look(
    rolled_back: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    rolled_back.click("champion", 2)
    history(MODEL, as_json=True)
    last = json.loads(capsys.readouterr().out)[-1]
    assert (last["kind"], last["from_version"], last["to_version"]) == ("by_hand", 1, 2)


def test_a_model_without_champions_has_no_history(
    neighbours: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    neighbours.register("train/aa")
    history(MODEL)
    assert "no champion yet" in capsys.readouterr().out
    history(MODEL, as_json=True)
    assert json.loads(capsys.readouterr().out) == []


def test_a_model_that_never_was_is_no_model_without_history(
    neighbours: RegistryNeighbours,
) -> None:
    with pytest.raises(ModelError, match="MLflow has no model 'nope'; none is: pvar run does it"):
        history("nope")
    neighbours.register("train/aa")
    with pytest.raises(ModelError, match=f"MLflow has no model 'nope'; there are {MODEL}"):
        history("nope")
