"""Services that several integration tests share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.models import fetch_model, pin_model
from pvar.ports import RegisteredVersion
from tests.services import docker, prefect_server
from tests.services.docker import Engine
from tests.services.prefect_server import PrefectServer
from tests.services.processes import NEVER_SECONDS, common_folder, locked


@pytest.fixture(scope="session")
def migrated_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of Prefect's with an empty database, to be copied: its migrations take seconds."""
    with _shared_folder(tmp_path_factory, "prefect") as home:
        if not home.exists():
            subprocess.run(
                [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
                env={**os.environ, "PREFECT_HOME": str(home)},
                check=True,
                capture_output=True,
            )
        return home


@pytest.fixture
def prefect_home(tmp_path: Path, migrated_home: Path) -> Path:
    """A home of Prefect's for one test."""
    return Path(shutil.copytree(migrated_home, tmp_path / "prefect"))


@pytest.fixture(scope="session")
def running_server(
    tmp_path_factory: pytest.TempPathFactory, migrated_home: Path
) -> Iterator[PrefectServer]:
    """One Prefect server for all tests: its start takes many seconds."""
    home = tmp_path_factory.mktemp("prefect-server")
    shutil.copytree(migrated_home, home, dirs_exist_ok=True)
    with prefect_server.running(home) as server:
        yield server
        _send_what_is_left()


def _send_what_is_left() -> None:
    """Let Prefect in this process send its events and logs: without the server, it would try to
    reach it for more than a minute at the process's end."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for service in (EventsWorker, APILogWorker):
        service.drain_all(timeout=NEVER_SECONDS)


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
    with _shared_folder(tmp_path_factory, "models") as folder:
        reference = pin_model("bundled:smollm2-135m-instruct", no_version)
        return fetch_model(reference, folder, no_version, no_registry, "")


@contextmanager
def _shared_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder that the test processes have in common (it may not exist yet), held by one."""
    shared = common_folder(factory)
    with locked(shared / f"{name}.lock"):
        yield shared / name


def no_registry(location: str, _: Path) -> None:
    raise AssertionError(f"{location} is not in a registry")


def no_version(reference: str) -> RegisteredVersion:
    raise AssertionError(f"{reference} is not in a registry")
