"""What is started together ends together, with nothing left."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.local_services import serve
from flows.services import Services
from infra.settings import Settings
from pvar.errors import ConfigError, StageError
from pvar.retrain_decision import RetrainConfig
from tests.services.processes import answers, free_port, wait_until

pytestmark = pytest.mark.slow  # processes that start and end


def start_two(services: Services, folder: Path) -> tuple[int, int]:
    """A server, and a service that dies without its file `pid`; port, and id of what it started."""
    port, file = free_port(), folder / "pid"
    services.start(
        "file server", "http.server", str(port), "--bind", "127.0.0.1", environment=os.environ
    )
    services.start("Spawner", "tests.services.spawner", str(file), environment=os.environ)
    services.wait_until(lambda: answers(port), "the file server")
    services.wait_until(lambda: file.exists() and file.read_text() != "", "the child")
    return port, int(file.read_text())


def test_the_end_of_the_body_ends_all_even_in_sessions_of_their_own(tmp_path: Path) -> None:
    with Services(tmp_path) as services:
        port, child = start_two(services, tmp_path)
        assert psutil.pid_exists(child)
    assert not answers(port)
    assert not psutil.pid_exists(child)


def test_one_that_dies_is_named_and_the_rest_ends_with_what_it_left(tmp_path: Path) -> None:
    with Services(tmp_path) as services:
        port, child = start_two(services, tmp_path)
        (tmp_path / "pid").unlink()
        with pytest.raises(StageError, match=r"(?s)Spawner ended with code 3.*  out of patience"):
            services.wait()
    assert not answers(port)
    wait_until(lambda: not psutil.pid_exists(child), "end of the orphan")


def test_all_ends_when_the_one_who_started_it_is_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.flows.test_services", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    port, child = map(int, starter.stdout.readline().split())
    assert psutil.pid_exists(child)
    starter.kill()
    starter.communicate()
    wait_until(lambda: not answers(port) and not psutil.pid_exists(child), "end of all")


def serve_nothing(home: Path, port: int) -> None:
    serve(
        Settings(home=home),
        RetrainConfig(),
        preset=None,
        prefect_port=port,
        mlflow_port=0,
        on_ready=lambda *_: None,
    )


def test_a_port_in_use_is_named_with_the_option_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        port = theirs.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} for Prefect .* another with --port"):
            serve_nothing(tmp_path, port)


def test_a_tracking_server_is_not_served_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVAR_MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    with pytest.raises(ConfigError, match="is the address of a server; unset it"):
        serve_nothing(tmp_path, 0)


def test_two_servers_have_no_port_in_common(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="port 5000 cannot be used for both servers"):
        serve(
            Settings(home=tmp_path),
            RetrainConfig(),
            preset=None,
            prefect_port=5000,
            mlflow_port=5000,
            on_ready=lambda *_: None,
        )


if __name__ == "__main__":  # the starter that is killed
    with Services(Path(sys.argv[1])) as started:
        print(*start_two(started, Path(sys.argv[1])), flush=True)
        started.wait()
