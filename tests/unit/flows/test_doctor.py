"""What `pvar doctor` calls missing: what an installation of its kind should have."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

from flows.commands.doctor import (
    DEMO,
    MODELS,
    SUPPORTED,
    WORKFLOW,
    doctor,
    look_at_needs,
    look_at_number_format,
    look_at_places,
    look_at_python,
    look_for_packages,
    look_for_room,
)
from flows.exit_codes import ERROR
from infra.hardware import read_hardware
from infra.machine_memory import Memory
from pvar.config import PipelineConfig
from pvar.number_format import resolve

VERSIONS = {package.name: "1.0" for package in (*WORKFLOW, *MODELS)}


def states(absent: set[str]) -> dict[str, str]:
    """What is said of each package where these are not installed."""
    installed = {name: version for name, version in VERSIONS.items() if name not in absent}
    return {finding.what: finding.state for finding in look_for_packages(installed.get)}


def test_an_installation_without_models_lacks_nothing() -> None:
    """The image pvar:cpu: its stages load none."""
    found = states({package.name for package in MODELS})
    assert {found[package.name] for package in MODELS} == {"optional"}
    assert "missing" not in found.values()


@pytest.mark.parametrize("name", ["torch", "trl"])
def test_one_of_the_packages_for_models_is_not_enough(name: str) -> None:
    assert states({name})[name] == "missing"


def test_the_demo_is_never_needed_the_workflow_always() -> None:
    found = states({"prefect"})
    assert found[DEMO.name] == "optional"
    assert found["prefect"] == "missing"


def test_versions_of_python_are_those_that_can_be_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    named = [".".join(map(str, version)) for version in SUPPORTED]
    prefix = "Programming Language :: Python :: "
    classifiers = project["classifiers"]
    found = [each.removeprefix(prefix) for each in classifiers if each.startswith(prefix)]
    assert found == ["3 :: Only", *named]
    after = SUPPORTED[-1][1] + 1
    assert project["requires-python"] == f">={named[0]},<3.{after}"
    assert look_at_python().state == "ok"
    monkeypatch.setattr(sys, "version_info", (3, after, 0, "final", 0))
    assert look_at_python().detail.endswith(f"needed is one of {', '.join(named)}")


def test_a_home_that_cannot_be_used_is_the_one_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PVAR_STORE_URI", "PVAR_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PVAR_HOME", "/proc/x")
    (finding,) = look_at_places()
    assert (finding.what, finding.state) == ("home", "missing")
    assert "/proc/x is not writable" in finding.detail
    assert finding.remedy.startswith("set PVAR_HOME")
    assert f"{finding.detail}; {finding.remedy}".count("PVAR_HOME") == 1  # the error has a remedy


def test_the_number_format_is_named_with_the_hardware_that_decides_it() -> None:
    (finding,) = look_at_number_format()
    hardware = read_hardware()
    assert finding.detail.startswith(f"auto is {resolve('auto', hardware, learns=False)}")
    assert hardware.name in finding.detail
    assert finding.detail.endswith("bfloat16 natively")


def test_what_a_configuration_lacks_is_found_by_the_key_that_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PVAR_JUDGE_BASE_URL", raising=False)
    monkeypatch.delenv("PVAR_JUDGE_API_KEY", raising=False)
    judge = {"kind": "arena_hard", "model": "gpt-4.1"}
    benchmark = {
        "kind": "arena_hard",
        "questions": "/no/question.jsonl",
        "baseline_answers": ["hub:org/name"],
        "judge": judge,
    }
    config = PipelineConfig.model_validate({"benchmarks": [benchmark]})
    findings = {finding.what: finding for finding in look_at_needs(config)}
    states = {key: finding.state for key, finding in findings.items()}
    assert states.pop("sample.engine") == "ok"
    assert {key: state for key, state in states.items() if state != "ok"} == {
        "benchmarks.0.questions": "missing",
        "benchmarks.0.judge": "missing",
    }
    questions = findings["benchmarks.0.questions"]
    assert (questions.detail, questions.remedy) == (
        "/no/question.jsonl: no such file",
        "check the path",
    )
    assert "PVAR_JUDGE_API_KEY" in findings["benchmarks.0.judge"].remedy


def test_memory_and_disk_are_looked_at_by_the_stages_that_run_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setattr("flows.preflight.read_memory", lambda: Memory(10**9, 10**9))
    monkeypatch.setattr("flows.preflight.read_gpu_memory", list)
    tree = {"runtime": {"placement": {"sample": {"pool": "docker"}}}}
    memory, disk = look_for_room(PipelineConfig.model_validate(tree))
    assert (memory.what, memory.state) == ("train", "missing")
    assert memory.remedy.startswith("set train.lora")
    assert str(tmp_path) in disk.what


def test_a_model_that_the_run_makes_is_named_by_its_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is pinned here, so its digest is not the one that the run gives it."""
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    findings = {each.what: each.detail for each in look_for_room(PipelineConfig())}
    assert findings["answers-challenger"].startswith("the weights of the model of train (0.135")


def without_prefect() -> str:
    raise ModuleNotFoundError("No module named 'prefect'", name="prefect")


def test_a_remedy_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Rich takes [workflow] for markup; a library that is not there is no traceback."""
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("flows.extras.ROOT", tmp_path)
    monkeypatch.setattr("flows.commands.doctor._version", lambda name: None)
    monkeypatch.setattr("flows.commands.doctor._prefect", without_prefect)
    assert doctor() == ERROR
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    mlflow = next(line for line in lines if "mlflow " in line)
    assert mlflow.endswith("run: pip install 'pvar[workflow]'")
    prefect = next(line for line in lines if line.startswith("✗  Prefect "))
    assert "prefect is not installed, which this command needs" in prefect
    vllm = next(line for line in lines if "vllm " in line)
    assert "'pvar[pipeline,vllm]'" in vllm
    assert "stand-in" not in "".join(lines)
    assert doctor(as_json=True) == ERROR
    findings = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert findings["mlflow"]["state"] == "missing"
    assert findings["mlflow"]["remedy"] == "run: pip install 'pvar[workflow]'"


def test_a_lexicon_that_nobody_chose_is_named_in_a_narrow_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PVAR_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "my.yaml").write_text("evaluate: {judge: {kind: afinn}}")
    monkeypatch.setattr("flows.commands.doctor.look_for_room", lambda _: ())
    doctor(str(tmp_path / "my.yaml"))
    out = capsys.readouterr().out
    (row,) = (line for line in out.splitlines() if "stand-in" in line)
    assert row.split()[:5] == ["–", "stand-in", "the", "rewards", "are"]
    assert "VADER, a sentiment" in row  # a remedy in a column of its own leaves it less
