"""`pvar serve` as a person uses it: start, new data, a retrained model, Ctrl-C, nothing left."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from infra.store import open_store
from tests.services.prefect_server import PVAR, QUICK, ROOT, kill_tree
from tests.services.processes import answers, wait_until
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import TOPICS, fake_settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Served(NamedTuple):
    """A `pvar serve` that is ready."""

    process: subprocess.Popen[str]
    home: Path
    prefect: str
    mlflow: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in another terminal, with what `serve` said to set."""
        environment = {
            "PREFECT_API_URL": f"{self.prefect}/api",
            "PVAR_HOME": str(self.home),
            "PVAR_STORE_URI": str(self.home.parent / "artifacts"),
        }
        return pvar(*command, environment=environment)


def pvar(*command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PVAR, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    home = tmp_path / "home"
    preset = str(tiny_preset(tmp_path))
    rule = "min_new_pairs=30"  # there will be 32
    log = (tmp_path / "serve.log").open("w")
    process = subprocess.Popen(
        [PVAR, "serve", "--preset", preset, "--rule", rule, "--port", "0", "--mlflow-port", "0"],
        cwd=tmp_path,
        env={**os.environ, **QUICK, "PVAR_HOME": str(home), "PVAR_STORE_URI": "artifacts"},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C stops everything" not in said:
            line = process.stdout.readline()
            assert line, (tmp_path / "serve.log").read_text()
            said += line
        addresses = re.findall(r"^\w+ +(http://127\.0\.0\.1:\d+)$", said, re.MULTILINE)
        assert re.search(
            rf"^runs in MLflow: {addresses[1]}/#/experiments/\d+\?workflowType=machine_learning$",
            said,
            re.MULTILINE,
        )
        yield Served(process, home, *addresses)
    finally:
        kill_tree(process)
        process.communicate()  # closes the pipe
        log.close()


def tiny_preset(folder: Path) -> Path:
    """Real training of a model of 70 thousand weights; the rest are fakes."""
    settings = fake_settings(
        folder / "replaced by the batch",
        policy=str(save_language_model(folder / "policy", seed=1)),
        evaluate={"judge": {"kind": "fake"}, "answers": {"engine": "fake", "max_new_tokens": 12}},
        promote={"model_name": "tiny", "min_win_rate": 0.0},
        train={"learning_rate": 0.01, "pairs_per_step": 4, "precision": "float32"},
    )
    preset = folder / "tiny.yaml"
    preset.write_text(yaml.safe_dump(settings))
    return preset


def test_new_data_becomes_a_model_and_ctrl_c_leaves_nothing(served: Served) -> None:
    refused = pvar("serve", environment={"PVAR_HOME": str(served.home)})
    assert refused.returncode == 2
    assert f"already served by process {served.process.pid} at {served.prefect}" in refused.stderr

    store = open_store(str(served.home.parent / "artifacts"))  # it was given as a relative path
    rows = [json.dumps({"prompt": f"Describe {topic}."}) for topic in TOPICS]
    store.write("incoming/monday.jsonl", "\n".join(rows).encode())
    announced = served.run("notify", "incoming/monday.jsonl")
    assert announced.returncode == 0, announced.stderr
    ended = "retrain/batches/000001/"
    wait_until(
        lambda: any(
            "done" in info.key or b'"error": "' in store.read(info.key)
            for info in store.list(ended)
        ),
        "end of the retraining",
    )
    batch = {info.key.removeprefix(ended): store.read(info.key) for info in store.list(ended)}
    assert set(batch) == {"batch.json", "attempt-1.json", "done.json"}, batch
    registry = MlflowClient(served.mlflow, registry_uri=served.mlflow)
    (version,) = registry.search_model_versions("name='tiny'")
    assert version.tags["pvar.artifact"].startswith("train/")

    processes = psutil.Process(served.process.pid).children(recursive=True)
    assert len(processes) >= 3
    os.kill(served.process.pid, signal.SIGINT)
    assert served.process.wait() == 0
    assert served.process.stdout is not None
    assert served.process.stdout.read() == "stopped\n"
    assert [process for process in processes if process.is_running()] == []
    for address in (served.prefect, served.mlflow):
        assert not answers(int(address.rpartition(":")[2]))


def test_a_closed_terminal_stops_what_was_started(tmp_path: Path) -> None:
    process = subprocess.Popen(
        # The tests may themselves be started with nohup, which children inherit.
        ["env", "--default-signal=HUP", PVAR, "serve", "--port", "0", "--mlflow-port", "0"],
        env={**os.environ, **QUICK, "PVAR_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    serve = psutil.Process(process.pid)
    try:
        wait_until(lambda: len(serve.children()) >= 2, "two servers that start")
        started = serve.children(recursive=True)
        process.send_signal(signal.SIGHUP)
        said, _ = process.communicate()
        assert (process.returncode, said) == (0, "stopped\n")
        assert [each for each in started if each.is_running()] == []
    finally:
        kill_tree(process)
