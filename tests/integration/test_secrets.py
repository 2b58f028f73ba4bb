"""Planted credentials are looked for wherever a run leaves something.

One pipeline of fakes with every kind of credential in its environment: S3 (key and session token),
the keys of the judge's and the policy's server, and MLflow's password inside its address. It fails
at the training of a broken model, which is when most is said: records, reports, tracebacks. Then
connections fail.
"""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.services import completions_server
from tests.services.chat_server import serving
from tests.services.loopback_http import Sent, sent_json
from tests.services.mlflow_server import MlflowServer
from tests.services.processes import NEVER_SECONDS
from tests.services.s3 import S3Server
from tests.workflow import fake_settings, write_prompts

pytestmark = [pytest.mark.slow]

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "PVAR_JUDGE_API_KEY": "sk-planted-judge-key",
    "PVAR_SAMPLER_API_KEY": "sk-planted-sampler-key",
}
PASSWORD = "planted-mlflow-password"
PLANTED = (
    *SECRETS.values(),
    PASSWORD,
    base64.b64encode(f"me:{PASSWORD}".encode()).decode(),  # as it travels
)

# Errors are printed with their causes: what a log of ours or of Prefect's would hold at worst.
_DRIVER = """
import os, sys, traceback
from pathlib import Path

def attempt(what, *arguments, **options):
    print("==", what.__name__, flush=True)
    try:
        what(*arguments, **options)
    except Exception:
        traceback.print_exc()

"""

_RUN = """
from flows.commands.gc import gc
from flows.commands.history import history
from flows.commands.lineage import lineage
from flows.commands.report import report
from flows.commands.run import run
from flows.commands.show import show
from flows.wiring import connect

preset, folder = sys.argv[1], Path(sys.argv[2])
attempt(run, preset=preset)
attempt(show, preset=preset)
attempt(report, out=folder / "report.html")
wiring = connect()
(folder / "model").mkdir()
(folder / "model/config.json").write_text("{}")
version = wiring.registry.register("secretive", folder / "model", "train/aa", {})
wiring.registry.promote(version, instead_of=None, reason="better")
attempt(history, "secretive")
attempt(lineage, "models:/secretive/1")
attempt(gc)
print(wiring)
"""

_FAIL = """
from flows.commands.history import history
from flows.wiring import connect
from pvar.runtime_config import RuntimeConfig
from pvar.sampler_config import SamplerSettings
from pvar.judge_config import AlpacaEvalJudge
from pvar.records import Comparison, Message

question = Comparison("p", (Message("user", "Why?"),), "a", "b")

def ask_judge():
    connect().judge(AlpacaEvalJudge(model="m"), None, RuntimeConfig()).judge([question])

def ask_sampler():
    settings = SamplerSettings(engine="openai")
    connect().sampler(settings, "sha256-policy", Path(), RuntimeConfig())

def write():
    connect().store.write("a", b"")

def log_figures(tracking):
    tracking.log_summary("0" * 32, {"a": 1.0})

living = connect().tracking
living.start_run("r", {})
attempt(log_figures, living)  # refused by a living server: no such run
attempt(ask_judge)
attempt(ask_sampler)  # whose server has another model
os.environ["PVAR_MLFLOW_TRACKING_URI"] = os.environ["DEAD_MLFLOW"]
attempt(history, "secretive")
os.environ["PVAR_MLFLOW_TRACKING_URI"] = os.environ["DEAD_MLFLOW"].replace("http", "strange")
attempt(history, "secretive")
os.environ["AWS_ENDPOINT_URL_S3"] = "http://127.0.0.1:9"
attempt(write)
"""


class Place(NamedTuple):
    """Where everything is that the processes of a test write to."""

    folder: Path
    bucket: str
    s3: S3Server
    preset: Path
    environment: dict[str, str]

    def run(self, script: str, *arguments: str) -> str:
        """Run a script in a process of its own; what it printed, once it ended well."""
        with (self.folder / "output.txt").open("w+") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _DRIVER + script, *arguments],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None:
                    assert found_in(process_list()) == []
                    with_patience(process)
            finally:
                process.kill()
                process.wait()
            output.seek(0)
            text = output.read()
        assert process.returncode == 0, text[-3000:]
        return text

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file below the folder, and every object of the bucket."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(self.folder)), path.read_bytes()
        client = self.s3.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for item in page.get("Contents", []):
                body = client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"]
                yield item["Key"], body.read()


def with_patience(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        return


def process_list() -> bytes:
    """What `ps` shows to everybody on this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return b"\n".join(lines)


def found_in(data: bytes) -> list[str]:
    """The planted secrets in there."""
    return [secret for secret in PLANTED if secret.encode() in data]


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow-server"))
    with server.running():
        yield server


@pytest.fixture
def place(
    tmp_path: Path, prefect_home: Path, moto_s3: S3Server, mlflow_server: MlflowServer
) -> Place:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "config.json").write_text("{}")
    (policy / "model.safetensors").write_bytes(b"no weights")
    settings = fake_settings(write_prompts(tmp_path / "prompts.jsonl"), policy=str(policy))
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump({**settings, "evaluate": {"opponent": str(policy)}}))
    bucket, port = moto_s3.new_bucket(), mlflow_server.port
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PVAR_")},
        **moto_s3.environment(),
        **SECRETS,
        "PVAR_HOME": str(tmp_path / "home"),
        "PVAR_STORE_URI": f"s3://{bucket}/artifacts",
        "PVAR_MLFLOW_TRACKING_URI": f"http://me:{PASSWORD}@127.0.0.1:{port}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(NEVER_SECONDS),
        "PYTHONPATH": os.getcwd(),
    }
    return Place(tmp_path, bucket, moto_s3, preset, environment)


def test_a_run_leaves_no_secret_anywhere(place: Place, mlflow_server: MlflowServer) -> None:
    printed = place.run(_RUN, str(place.preset), str(place.folder))
    # It got as far as it can, and every command said something.
    assert printed.count("Traceback") <= printed.count("== ")
    assert "select/" in printed
    assert "promotion: better" in printed
    assert "artifacts (" in printed
    files = dict(place.files())
    assert any(name.startswith("artifacts/runs/") for name in files)
    assert any(name.startswith("prefect/") and name.endswith(".db") for name in files)
    for path in mlflow_server.folder.rglob("*"):
        if path.is_file():
            files[f"mlflow server: {path.name}"] = path.read_bytes()
    assert "mlflow server: mlflow.db" in files
    leaks = {name: found_in(data) for name, data in files.items() if found_in(data)}
    assert leaks == {}
    assert found_in(printed.encode()) == []


def test_failing_connections_are_told_without_secrets(place: Place) -> None:
    refuses = serving(lambda _: Sent(b'{"error": {"message": "who are you?"}}', 401))
    another = completions_server.serving("another", lambda _: sent_json({}))
    with refuses as server, another as sampler_server:
        environment = {
            **place.environment,
            "PVAR_JUDGE_BASE_URL": server.base_url,
            "PVAR_SAMPLER_BASE_URL": sampler_server.base_url,
            "DEAD_MLFLOW": f"http://me:{PASSWORD}@127.0.0.1:9",
        }
        printed = place._replace(environment=environment).run(_FAIL)
        # The key did travel, to where it belongs.
        assert server.asked[0].authorization == f"Bearer {SECRETS['PVAR_JUDGE_API_KEY']}"
    assert "serves another, not sha256-policy" in printed
    # All six failed, each with a traceback that was looked at.
    assert printed.count("== ") == 6
    for part in printed.split("== ")[1:]:
        assert "Traceback" in part
        assert found_in(part.encode()) == []
    assert [name for name, data in place.files() if found_in(data)] == []
