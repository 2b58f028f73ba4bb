"""Services that several integration tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.bundled_model import convert_bundled_model
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
    """Folder of the real SmolLM2-135M-Instruct; nobody writes there."""
    folder = tmp_path_factory.mktemp("smollm2")
    convert_bundled_model("smollm2-135m-instruct", folder)
    return folder
