"""`pvar runs` and `pvar diff`: what was run, and in what two runs differ."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.commands.diff import diff
from flows.commands.runs import runs
from flows.run_record import NodeRecord, RunRecord, save_run
from pvar.artifacts import Summary
from pvar.config import PipelineConfig
from pvar.errors import ConfigError, InputError, UnreadableRunError
from pvar.ports import Store
from tests.artifacts import put_artifact
from tests.workflow import fake_settings

CHAMPION: Summary = {"gate_passed": True, "version": 3, "promoted": True}
REFUSED: Summary = {"gate_passed": False, "version": 4, "promoted": False}


@pytest.fixture
def store(file_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setenv("PVAR_STORE_URI", file_store.uri)
    monkeypatch.setenv("COLUMNS", "200")
    return file_store


def put_run(
    store: Store, run: str, *nodes: NodeRecord, finished: bool = True, **changes: Any
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    save_run(
        store,
        RunRecord(
            run=run,
            started_at=now,
            finished_at=now if finished else None,
            preset="mine.yaml",
            config=PipelineConfig.model_validate(fake_settings(Path("p.jsonl"), **changes)),
            mlflow_run="m",
            mlflow_experiment="e",
            nodes=nodes,
        ),
    )


def made(store: Store, stage: str, summary: Summary, **config: Any) -> NodeRecord:
    artifact = put_artifact(store, stage, config=config, summary=summary)
    return NodeRecord(name=stage, artifact=artifact.root, state="made")


def result(store: Store, rate: float, **config: Any) -> NodeRecord:
    figures: Summary = {"win_rate": rate, "win_rate_lower": rate - 0.1, "win_rate_upper": None}
    return made(store, "evaluate", {**figures, "judge": "afinn"}, **config)


def listed(capsys: pytest.CaptureFixture[str], **arguments: Any) -> list[dict[str, Any]]:
    capsys.readouterr()
    runs(as_json=True, **arguments)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_runs_are_listed_newest_first_with_state_and_results(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    put_run(store, "20260101-a", result(store, 0.75), made(store, "promote", CHAMPION))
    put_run(store, "20260102-b", NodeRecord(name="train", artifact="train/1", state="failed"))
    put_run(store, "20260103-c", NodeRecord(name="train", artifact="train/2"), finished=False)
    waits = NodeRecord(name="promote", artifact="promote/3", state="waiting")
    put_run(store, "20260104-d", waits, finished=False)
    store.write("runs/20260105-e.json", b'{"run": "of a later version"}')
    ended = NodeRecord(name="train", artifact="train/1", state="failed", error="interrupted")
    put_run(store, "20260102-c", ended)
    newest, waiting, unfinished, interrupted, failed, first = listed(capsys)
    assert (newest["run"], newest["state"]) == ("20260105-e", "unreadable")
    assert [each["state"] for each in (waiting, unfinished, interrupted, failed, first)] == [
        "waiting", "unfinished", "interrupted", "failed", "done",
    ]  # fmt: skip
    assert first["started_at"] == "2026-01-01T00:00:00+00:00"
    assert (first["win_rate"], first["win_rate_lower"]) == (0.75, 0.65)
    assert first["win_rate_upper"] is failed["win_rate"] is failed["gate_passed"] is None
    assert (first["gate_passed"], first["model"], first["is_champion"]) == (True, "pvar/3", True)
    assert [each["run"] for each in listed(capsys, last=2)] == ["20260105-e", "20260104-d"]
    runs()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == [
        "20260101-a", "done", "mine.yaml", "75.0%", "(65.0%", "to", "–)", "passed", "pvar/3,",
        "promoted",
    ]  # fmt: skip


def test_figures_of_artifacts_that_are_gone_are_unknown(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    node = result(store, 0.5)
    put_run(store, "r", node)
    store.delete(f"{node.artifact}/manifest.json")
    (row,) = listed(capsys)
    assert (row["state"], row["win_rate"]) == ("done", None)


def test_an_empty_store_says_how_to_begin(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    runs()
    assert "has no runs yet; start one: pvar run --preset demo" in capsys.readouterr().out
    assert listed(capsys) == []
    with pytest.raises(ConfigError, match="--last is 0, but must be 1 or more"):
        runs(last=0)


def test_two_runs_differ_in_settings_and_figures(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    common = made(store, "ingest", {"num_prompts": 8})
    put_run(store, "one", common, result(store, 0.75), made(store, "promote", CHAMPION))
    put_run(
        store, "two", common, result(store, 0.5, seed=1),
        NodeRecord(name="promote", artifact="promote/9", state="failed"),
        **{"select.strategy": "random"},
    )  # fmt: skip
    diff("one", "two", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"select.strategy": ["top", "random"]}
    assert found["figures"] == {
        "evaluate": {"win_rate": [0.75, 0.5], "win_rate_lower": [0.65, 0.4]}
    }
    assert found["shared"] == ["ingest"]
    diff("one", "two")
    text = capsys.readouterr().out
    assert "select.strategy" in text
    assert "one artifact for both: ingest" in text
    diff("one", "one")
    assert "setting: no difference" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"'three' is not in .*; there are two, one; see"):
        diff("one", "three")


def test_a_record_of_another_version_is_one_line_that_names_it(store: Store) -> None:
    put_run(store, "20260101-a")
    store.write("runs/20260105-e.json", b'{"run": "of a later version"}')
    with pytest.raises(
        UnreadableRunError, match=r"runs/20260105-e.json: this version .*started_at"
    ):
        diff("20260101-a", "20260105-e")
