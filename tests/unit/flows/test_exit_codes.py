"""What a command's result means for its exit code, and what `--json` prints of it."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from flows.commands.retrain import code_of_retraining
from flows.commands.rounds import code_of_rounds
from flows.commands.run import print_result
from flows.commands.stage import code_of_stage
from flows.exit_codes import DONE, ERROR, GATE_NOT_PASSED, WAITING, WRONG_CALL, code_of_error
from flows.pipeline import _failed
from flows.preflight import as_if_pinned
from flows.retraining import RetrainResult
from flows.run_record import INTERRUPTED, NodeRecord, RunRecord, save_run
from flows.run_report import GO_ON, _failure
from flows.stage_nodes import StageResult
from flows.temporary_server import _stop
from flows.wiring import Wiring
from pvar.artifacts import Summary, WaitingRecord
from pvar.config import PipelineConfig
from pvar.errors import (
    ConfigError,
    InputError,
    LostRaceError,
    MissingError,
    ModelError,
    PromotionError,
    StageError,
    StoreError,
    UnavailableError,
)
from pvar.round_rules import RoundResult, RoundsResult
from tasks.graph import plan_nodes
from tasks.report.data import Failure
from tests.artifacts import put_artifact
from tests.workflow import fake_settings, open_wiring, write_prompts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WAITS = WaitingRecord(what="approval", how_to_go_on="pvar approve", since=NOW)
RUN = "20260101-120000-aaaa"


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PVAR_STORE_URI", raising=False)
    return open_wiring(tmp_path / "home")


def decided(wiring: Wiring, *, passed: bool) -> RunRecord:
    """A run of one stage, the gate."""
    summary: Summary = {
        "gate_passed": passed,
        "version": 1,
        "promoted": passed,
        "decision": None,
    }
    keys = put_artifact(wiring.store, "promote", config={"passed": passed}, summary=summary)
    node = NodeRecord(name="promote", artifact=keys.root, state="made", seconds=2.0)
    return RunRecord(
        run=RUN,
        started_at=NOW,
        finished_at=NOW,
        preset="my.yaml",
        config=PipelineConfig(),
        mlflow_run="m",
        mlflow_experiment="1",
        nodes=(node,),
    )


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


@pytest.mark.parametrize(("passed", "code"), [(True, DONE), (False, GATE_NOT_PASSED)])
def test_a_run_ends_with_what_its_gate_decided(
    wiring: Wiring, capsys: pytest.CaptureFixture[str], passed: bool, code: int
) -> None:
    record = decided(wiring, passed=passed)
    assert print_result(record, wiring, as_json=True) == code
    found = printed(capsys)
    assert (found["run"], found["state"], found["gate_passed"]) == (RUN, "done", passed)
    (node,) = found["nodes"]
    assert node["artifact"] == record.nodes[0].artifact
    assert node["figures"]["promoted"] is passed
    assert found["report"] == f"{wiring.store.uri}/runs/{RUN}.html"
    assert print_result(record, wiring, as_json=False) == code
    assert f"gate {'passed' if passed else 'failed'}" in capsys.readouterr().out


def test_a_run_that_waits_says_for_what(wiring: Wiring, capsys: pytest.CaptureFixture[str]) -> None:
    record = decided(wiring, passed=True)
    node = record.nodes[0].model_copy(update={"state": "waiting", "waiting": WAITS})
    waiting = record.with_node(node).model_copy(update={"finished_at": None})
    assert print_result(waiting, wiring, as_json=True) == WAITING
    found = printed(capsys)
    assert (found["state"], found["gate_passed"]) == ("waiting", None)
    assert found["waiting"]["node"] == "promote"
    assert found["waiting"]["how_to_go_on"] == "pvar approve"


def test_a_run_without_a_gate_is_done(wiring: Wiring, capsys: pytest.CaptureFixture[str]) -> None:
    record = decided(wiring, passed=True).model_copy(update={"nodes": ()})
    assert print_result(record, wiring, as_json=True) == DONE


@pytest.mark.parametrize(
    ("found", "gates", "code"),
    [
        ({}, {}, DONE),  # no new data
        ({"runs": ("a", "b")}, {"a": True, "b": None}, DONE),
        ({"runs": ("a", "b")}, {"a": False, "b": True}, GATE_NOT_PASSED),
        ({"runs": ("a",), "waiting": ("batch 2 is held",)}, {"a": False}, WAITING),
        ({"postponed": ("batch 1 pauses after an outage",)}, {}, WAITING),
    ],
)
def test_a_retraining_waits_or_ends_with_its_gates(
    found: dict[str, Any], gates: dict[str, bool | None], code: int
) -> None:
    nothing = {"runs": (), "batch": None, "reasons": ("no new data",), "quarantined": ()}
    result = RetrainResult.model_validate({**nothing, **found})
    assert code_of_retraining(result, gates) == code


@pytest.mark.parametrize(
    ("gates", "waiting", "code"),
    [
        ((), None, DONE),
        ((False, True), None, DONE),
        ((True, False), None, GATE_NOT_PASSED),
        ((False,), "round 2 waits", WAITING),
    ],
)
def test_rounds_wait_or_end_with_the_last_gate(
    gates: tuple[bool, ...], waiting: str | None, code: int
) -> None:
    ended = tuple(RoundResult.model_construct(gate_passed=passed) for passed in gates)
    result = RoundsResult.model_construct(rounds=ended, waiting=waiting)
    assert code_of_rounds(result) == code


def test_a_stage_alone_ends_as_its_gate_did_and_waits_only_if_all_of_it_does() -> None:
    passed, failed, made = (
        StageResult.model_construct(summary=summary)
        for summary in ({"gate_passed": True}, {"gate_passed": False}, {})
    )
    waits = StageResult.model_construct(summary={}, waiting=WAITS)
    for results, code in (
        ([made], DONE), ([passed], DONE), ([failed], GATE_NOT_PASSED),
        ([made, waits], DONE), ([waits], WAITING), ([], WAITING),
    ):  # fmt: skip
        assert code_of_stage(results) == code


def test_what_the_user_gave_is_a_wrong_call_and_the_rest_an_error() -> None:
    for kind in (ConfigError, InputError, MissingError, ModelError, PromotionError):
        assert code_of_error(kind("x")) == WRONG_CALL
    for other in (StoreError, StageError, UnavailableError, LostRaceError):  # the next may win
        assert code_of_error(other("x")) == ERROR


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == DONE
    return capsys.readouterr().out


def test_a_name_that_show_prints_can_be_pasted(
    wiring: Wiring,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a terminal of 80 columns, with a long name of a node and a long state."""
    monkeypatch.setenv("COLUMNS", "80")
    preset = tmp_path / "my.yaml"
    tree = fake_settings(write_prompts(tmp_path / "prompts.jsonl"))
    tree["score"]["reward_models"] = [
        {"kind": "vader", "name": "a-name-as-long-as-a-reward-model-may-have"}
    ]
    preset.write_text(yaml.safe_dump(tree))
    nodes = json.loads(shown(capsys, "show", str(preset), "--json"))["nodes"]
    assert len(nodes) == 10
    text = shown(capsys, "show", str(preset)).split()
    assert {each["artifact"] for each in nodes} <= set(text)


def test_the_stages_of_a_run_are_shown_by_its_first_characters(
    wiring: Wiring, capsys: pytest.CaptureFixture[str]
) -> None:
    record = decided(wiring, passed=False)
    save_run(wiring.store, record)
    for text in ("latest", "2026"):
        found = json.loads(shown(capsys, "show", text, "--json"))
        (node,) = found["nodes"]
        assert (node["artifact"], node["state"]) == (record.nodes[0].artifact, "complete")
        assert found["remarks"] == [f"run {RUN}, preset my.yaml"]
    for error, says in ((INTERRUPTED, "promote interrupted"), ("no", "promote failed: no")):
        ended = record.nodes[0].model_copy(update={"state": "failed", "error": error})
        save_run(wiring.store, record.with_node(ended))
        remarks = json.loads(shown(capsys, "show", "latest", "--json"))["remarks"]
        assert remarks == [f"run {RUN}, preset my.yaml", says]


class CtrlC:
    """A standard input at which somebody presses Ctrl-C."""

    @property
    def buffer(self) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_says_that_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", CtrlC())
    with pytest.raises(SystemExit) as end:
        main(["variance", "-"])
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "interrupted; run the same command again to continue\n")


class Impatient(subprocess.Popen[bytes]):
    """Somebody presses Ctrl-C again while the process is waited for."""

    waits = 0

    def wait(self, timeout: float | None = None) -> int:
        self.waits += 1
        if self.waits == 1:
            raise KeyboardInterrupt
        return super().wait(timeout)


def test_a_second_interrupt_kills_the_temporary_server() -> None:
    """Its stop runs at exit, where an exception would print a traceback."""
    process = Impatient(["sleep", "600"], stdin=subprocess.PIPE)
    _stop(process)
    assert process.returncode is not None


def test_a_run_that_was_interrupted_is_recorded_as_such() -> None:
    node = plan_nodes(as_if_pinned(PipelineConfig()))["ingest"]
    interrupted = _failed(node, KeyboardInterrupt())
    assert (interrupted.error, interrupted.was_interrupted) == (INTERRUPTED, True)
    assert _failure(interrupted) == Failure("ingest", GO_ON, was_interrupted=True)
    failed = _failed(node, ConfigError("interrupted by a mistake"))
    assert (failed.error, failed.was_interrupted) == ("interrupted by a mistake", False)
    assert _failure(failed) == Failure("ingest", "interrupted by a mistake")
