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
    with pytest.raises(ModelError, match="no model 'nope'; pvar run registers the first"):
        history("nope")
    neighbours.register("train/aa")
    with pytest.raises(ModelError, match=f"MLflow has no model 'nope'; there are {MODEL}"):
        history("nope")


def measured(exam: str, conditions: str = "c", **figures: str) -> dict[str, str]:
    return {"exam": exam, "exam_conditions": conditions, **RESULTS, **figures}


@pytest.fixture
def examined(neighbours: RegistryNeighbours) -> RegistryNeighbours:
    """Two versions on one exam, one judged otherwise, one of an old release, one elsewhere."""
    first = {"first.win_rate": "0.7", "first.win_rate_lower": "0.6", "first.win_rate_upper": "0.8"}
    looked = {"look": "look 2 at this exam, level 0.0076 of 0.05", "gate": "passed"}
    neighbours.register("train/aa", **measured("e1", ability="0.5", gate="failed"))
    neighbours.register("train/bb", **measured("e1", "other"))
    neighbours.register("train/cc", **RESULTS)
    neighbours.register(
        "train/dd",
        **measured("e1", ability="0.4"),
        **first,
        **looked,
        **{"first.ability_change": "-0.15"},
    )
    neighbours.register("train/ee", **measured("e2"))
    return neighbours


@pytest.mark.usefixtures("examined")
def test_results_on_different_exams_are_never_in_one_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    history(MODEL, versions=True)
    tables: dict[str, list[list[str]]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.strip().startswith("exam "):
            rows = tables.setdefault(line.strip(), [])
        elif line.split() and line.split()[0].isdigit():
            rows.append(line.split())
    assert {title: [row[0] for row in rows] for title, rows in tables.items()} == {
        "exam e1, conditions c": ["1", "4"],
        "exam e1, conditions other": ["2"],
        "exam e2, conditions c": ["5"],
        "exam not recorded: these results are not comparable": ["3"],
    }
    first, fourth = tables["exam e1, conditions c"]
    assert first[1] == "failed"
    assert " ".join(fourth).startswith("4 passed 61.0% (53.0%–68.0%) 70.0% (60.0%–80.0%) 40.0%")
    assert "-15.0 points look 2 at this exam, level 0.0076 of 0.05" in " ".join(fourth)


@pytest.mark.usefixtures("examined")
def test_json_of_the_versions_has_the_curve(capsys: pytest.CaptureFixture[str]) -> None:
    history(MODEL, versions=True, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    curve = [row for row in rows if (row["exam"], row["exam_conditions"]) == ("e1", "c")]
    assert [(row["version"], row["ability"], row["first_win_rate"]) for row in curve] == [
        (1, 0.5, None),
        (4, 0.4, 0.7),
    ]
    assert curve[1]["ability_change_since_first"] == -0.15
    assert [row["win_rate"] for row in curve] == [0.61, 0.61]


def test_fresh_pairs_and_divergence_have_columns_where_there_are_any(
    neighbours: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    neighbours.register("train/aa", **measured("e1"))
    history(MODEL, versions=True)
    before = capsys.readouterr().out
    assert "fresh pairs" not in before
    assert "divergence" not in before
    figures = {
        "challenger_score": "62.0000",
        "difference": "3.0000",
        "difference_lower": "-1.0000",
        "difference_upper": "7.0000",
        "first_difference": "12.0000",
    }
    tags = {f"fresh.{name}": text for name, text in figures.items()}
    neighbours.register("train/bb", **measured("e1"), **tags, **{"first.kl": "7.2500"})
    history(MODEL, versions=True)
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[-2:] == ["–", "–"]
    assert " ".join(second.split()).endswith(" 7.25 62.0%, +3.0 points (-1.0 to +7.0)")
    history(MODEL, versions=True, as_json=True)
    none, row = json.loads(capsys.readouterr().out)
    assert (none["fresh_agreement"], none["divergence_since_first"]) == (None, None)
    assert row["fresh_agreement"] == 0.62
    assert (row["fresh_change_lower"], row["fresh_change_since_first"]) == (-0.01, 0.12)
    assert row["fresh_change_since_first_lower"] is None
    assert row["divergence_since_first"] == 7.25


def test_comparisons_with_different_first_models_are_told_apart(
    neighbours: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {f"first.{name}": value for name, value in RESULTS.items()}
    for number, model in enumerate(("sha256-aa", "sha256-aa", "sha256-bb")):
        neighbours.register(f"train/{number}", **measured("e1"), **first, **{"first.model": model})
        history(MODEL, versions=True)
        assert ("[sha256-" in capsys.readouterr().out) == (model == "sha256-bb")


def test_moves_name_the_exam_of_their_results(
    examined: RegistryNeighbours, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, *_) = [facts.version for facts in examined.registry().versions(MODEL)]
    examined.registry().promote(first, instead_of=None, reason="gate passed: promote/01")
    history(MODEL, as_json=True)
    assert [row["exam"] for row in json.loads(capsys.readouterr().out)] == ["e1"]
