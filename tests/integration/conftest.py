"""Services that several integration tests share."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.models import fetch_model
from tests.services import docker, prefect_server
from tests.services.docker import Engine
from tests.services.prefect_server import PrefectServer


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """One Prefect server for all tests: its start takes many seconds."""
    with prefect_server.running(tmp_path_factory.mktemp("prefect-server")) as server:
        yield server


@pytest.fixture
def server(running_server: PrefectServer) -> Iterator[PrefectServer]:
    """The server, which this process talks to as well while the test runs."""
    with running_server.is_ours():
        yield running_server


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """A Docker engine, shared by the test processes."""
    docker.require_engine()
    with docker.running() as engine:
        yield engine


@pytest.fixture(scope="session")
def docker_images(docker_engine: Engine) -> Engine:
    """The engine with the images `pvar:cpu` and `pvar:train`, built from this checkout."""
    for target in ("cpu", "train"):
        docker_engine.build(target)
    return docker_engine


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the real SmolLM2-135M-Instruct, shared by the test processes; nobody writes there.

    To convert it takes half a minute.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "smollm2.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return fetch_model("bundled:smollm2-135m-instruct", shared / "models", no_registry)


def no_registry(location: str, _: Path) -> None:
    raise AssertionError(f"{location} is not in a registry")
