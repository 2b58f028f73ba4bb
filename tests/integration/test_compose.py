"""The stack of docker/compose.yaml: refused without passwords, brought up, used, and gone again.

PostgreSQL and the S3 server come from an image of the tests' own where theirs cannot be pulled
(tests/services/stack); everything else is as users start it, `make up` and `make down` included.
"""

import os
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from tests.services.docker import ROOT, Engine
from tests.services.processes import NEVER_SECONDS, free_port, require, wait_until
from tests.services.s3 import S3Server
from tests.workflow import fake_settings, write_prompts

pytestmark = [pytest.mark.slow, pytest.mark.service]

STACK = ROOT / "tests/services/stack"
SECRETS = {"POSTGRES_PASSWORD": "postgres-secret", "S3_SECRET_KEY": "s3-secret"}
PORTS = ("PREFECT_PORT", "MLFLOW_PORT", "S3_PORT")
SERVERS = ("postgres", "s3", "prefect", "mlflow", "worker")


class Stack(NamedTuple):
    """A running stack."""

    engine: Engine
    ports: dict[str, int]

    def prefect(self, verb: str, path: str, **body: Any) -> Any:
        """What Prefect's API answers on its published port."""
        address = f"http://127.0.0.1:{self.ports['PREFECT_PORT']}/api/{path}"
        answer = httpx.request(verb, address, json=body or None, timeout=NEVER_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def s3(self) -> S3Server:
        address = f"http://127.0.0.1:{self.ports['S3_PORT']}"
        return S3Server(address, "pvar", SECRETS["S3_SECRET_KEY"])


def make(engine: Engine, environment_file: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    """Run `make` as a user does, with the override and this engine."""
    settings = {
        "STACK_ENV": str(environment_file),
        "STACK_OVERRIDE": f"--file {STACK / 'compose.override.yaml'}",
        "COMPOSE": "docker-compose",
        "DOCKER_SOCKET": engine.host.removeprefix("unix://"),
        "DOWN_ARGUMENTS": "--volumes --timeout 3",
    }
    return subprocess.run(
        ["make", "--no-print-directory", *targets, *(f"{k}={v}" for k, v in settings.items())],
        cwd=ROOT,
        env={**os.environ, **engine.environment(), "TESTS_PACKAGES": sysconfig.get_path("platlib")},
        capture_output=True,
        text=True,
        check=False,
    )


def write_environment(path: Path, **values: object) -> Path:
    """A filled-in copy of docker/.env.example."""
    lines = (ROOT / "docker/.env.example").read_text().splitlines()
    unset = [line for line in lines if line.partition("=")[0].lstrip("#") not in values]
    path.write_text("\n".join([*unset, *(f"{k}={v}" for k, v in values.items())]) + "\n")
    return path


def last_words(engine: Engine) -> str:
    """What the containers said last."""
    names = engine.run("ps", "--all", "--format", "{{.Names}}").split()
    said = [
        subprocess.run(
            ["docker", "--host", engine.host, "logs", "--tail", "20", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        ).stdout
        for name in names
    ]
    return "\n".join(said)


@pytest.fixture(scope="module")
def stack(docker_images: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    require("docker", ["docker-compose"])
    docker_images.run("build", "--network=host", "--tag", "pvar-tests/stack", str(STACK))
    ports = {name: free_port() for name in PORTS}
    environment = tmp_path_factory.mktemp("compose") / ".env"
    write_environment(environment, **SECRETS, **ports)
    try:
        started = make(docker_images, environment, "up")
        assert started.returncode == 0, started.stderr[-1000:] + last_words(docker_images)
        yield Stack(docker_images, ports)
    finally:
        stopped = make(docker_images, environment, "down")
    assert stopped.returncode == 0, stopped.stderr[-3000:]
    left = docker_images.run(
        "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project"
    )
    networks = docker_images.run("network", "ls", "--format", "{{.Name}}").split()
    volumes = docker_images.run("volume", "ls", "--quiet").split()
    assert left == ""
    assert "pvar" not in networks
    assert not [name for name in volumes if name.startswith("pvar_")]


def test_it_is_refused_without_passwords(docker_engine: Engine, tmp_path: Path) -> None:
    require("docker", ["docker-compose"])
    missing = make(docker_engine, tmp_path / "none", "up")
    assert missing.returncode != 0
    assert "cp docker/.env.example" in missing.stdout
    for name in SECRETS:
        others = {other: value for other, value in SECRETS.items() if other != name}
        refused = make(docker_engine, write_environment(tmp_path / name, **others), "up")
        assert refused.returncode != 0
        assert f"${{{name}:?" in refused.stderr
        assert "set it in docker/.env" in refused.stderr


def test_ports_are_open_on_loopback_only_and_images_are_pinned() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    tags = [service["image"].rpartition(":")[2] for service in services.values()]
    assert "latest" not in tags


def test_every_server_becomes_healthy(stack: Stack) -> None:
    def health(service: str) -> str:
        state = stack.engine.inspect(f"pvar_{service}_1")["State"]
        return str(state["Health"]["Status"])

    for service in SERVERS:
        wait_until(lambda: health(service) == "healthy", f"health of {service}")  # noqa: B023


def test_a_stage_runs_in_the_stack(stack: Stack, tmp_path: Path) -> None:
    """Its container reaches Prefect, MLflow and the store by their names in the network."""
    client = stack.s3().client()
    client.upload_file(str(write_prompts(tmp_path / "prompts.jsonl")), "pvar", "prompts.jsonl")
    config = fake_settings(Path("unused"), **{"ingest.source": "s3://pvar/prompts.jsonl"})
    deployment = stack.prefect("GET", "deployments/name/ingest/ingest-docker")["id"]
    run = stack.prefect(
        "POST", f"deployments/{deployment}/create_flow_run", parameters={"config": config}
    )["id"]

    def state() -> Any:
        return stack.prefect("GET", f"flow_runs/{run}")["state"]

    wait_until(lambda: state()["type"] in ("COMPLETED", "FAILED", "CRASHED"), "the stage")
    assert state()["type"] == "COMPLETED", state()["message"]
    found = client.list_objects_v2(Bucket="pvar", Prefix="artifacts/ingest/")["Contents"]
    assert any(item["Key"].endswith("manifest.json") for item in found)
    mlflow = f"http://127.0.0.1:{stack.ports['MLFLOW_PORT']}/api/2.0/mlflow/runs/search"
    experiments = httpx.post(mlflow.replace("runs", "experiments"), json={"max_results": 10})
    ids = [each["experiment_id"] for each in experiments.json()["experiments"]]
    runs = httpx.post(mlflow, json={"experiment_ids": ids}).json()["runs"]
    assert [each["info"]["run_name"] for each in runs] == ["ingest"], runs


def test_the_form_places_every_stage_of_the_demo_in_a_container(stack: Stack) -> None:
    """The pipeline's own container loads no model."""
    deployed = stack.prefect("GET", "deployments/name/pipeline/pipeline")
    assert deployed["work_pool_name"] == "pvar-docker"
    assert deployed["parameters"]["preset"] == "demo"
    placement = deployed["parameters"]["config"]["runtime"]["placement"]
    assert {each["pool"] for each in placement.values()} == {"docker"}


def test_passwords_are_in_no_command_line(stack: Stack) -> None:
    for service in SERVERS:
        described = stack.engine.inspect(f"pvar_{service}_1")
        command = " ".join([described["Path"], *described["Args"]])
        assert not [secret for secret in SECRETS.values() if secret in command]
