"""A command without a configured Prefect server brings its own, and takes it along when it dies."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest

from tests.services.prefect_server import PVAR, PrefectServer
from tests.services.processes import NEVER_SECONDS, wait_until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9/api"

COMMAND = """
import time
from urllib.request import urlopen
from flows.temporary_server import temporary_server
from prefect.settings import PREFECT_API_URL
with temporary_server():
    try:
        print(PREFECT_API_URL.value(), flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        time.sleep(2)
        print(urlopen(f"{PREFECT_API_URL.value()}/health").status)
"""


def command(
    script: str = COMMAND, folder: Path = ROOT, **environment: str
) -> "subprocess.Popen[str]":
    clean = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**clean, **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=NEVER_SECONDS) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def test_the_server_dies_with_a_killed_command(prefect_home: Path) -> None:
    """It has one of its own: an empty variable names none."""
    with command(PREFECT_HOME=str(prefect_home), PREFECT_API_URL="") as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert answers(address)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not answers(address), f"silence of {address}")


def test_a_server_that_starts_dies_with_a_killed_command(prefect_home: Path) -> None:
    """It waits for its database, which the test holds until it is gone."""
    database = sqlite3.connect(prefect_home / "prefect.db", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    with command(PREFECT_HOME=str(prefect_home)) as process:
        started = psutil.Process(process.pid)
        wait_until(lambda: bool(started.children()), "the server's process")
        (server,) = started.children()
        process.send_signal(signal.SIGKILL)
        _, left = psutil.wait_procs([server], timeout=NEVER_SECONDS)
        assert left == []
        assert process.stderr is not None
        assert process.stderr.read() == ""  # it did not end because the database was locked
    database.close()


def test_modules_of_the_users_shadow_none_of_the_servers(
    prefect_home: Path, tmp_path: Path
) -> None:
    for name in ("tasks", "flows", "infra", "pvar"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    # `pvar` itself, which has its own folder on its path, not this one.
    script = f"import sys; sys.path.remove('')\n{COMMAND}"
    with command(script, folder=tmp_path, PREFECT_HOME=str(prefect_home)) as process:
        assert process.stdout is not None
        assert answers(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)


def test_the_server_outlives_the_interrupt_of_its_command(prefect_home: Path) -> None:
    """Ctrl-C goes to the whole group of processes; the command still tells the server its end."""
    with command(PREFECT_HOME=str(prefect_home)) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline().strip() == "200"
        assert process.wait() == 0
    assert not answers(address)


def test_a_configured_server_is_used_as_it_is(prefect_home: Path, server: PrefectServer) -> None:
    with command(PREFECT_HOME=str(prefect_home), PREFECT_API_URL=server.api) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == server.api
        process.kill()


def test_so_is_one_of_prefects_profile(prefect_home: Path, server: PrefectServer) -> None:
    """The command ends well, though the server that it began to start was stopped meanwhile."""
    profile = f'active = "ours"\n[profiles.ours]\nPREFECT_API_URL = "{server.api}"\n'
    (prefect_home / "profiles.toml").write_text(profile)
    script = COMMAND.replace("time.sleep(600)", "pass")
    with command(script, PREFECT_HOME=str(prefect_home)) as process:
        said, complaints = process.communicate()
    assert (process.returncode, said.strip(), complaints) == (0, server.api, "")


def test_a_configured_server_that_does_not_answer_is_told(prefect_home: Path) -> None:
    told = subprocess.run(
        [PVAR, "run", "--preset", "demo"],
        env={**os.environ, "PREFECT_HOME": str(prefect_home), "PREFECT_API_URL": NOBODY},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1
    assert f"error: the Prefect server at {NOBODY} does not answer" in told.stderr
    assert "unset PREFECT_API_URL" in told.stderr
    assert "Traceback" not in told.stderr


def test_settings_that_prefect_refuses_are_said_without_their_values(prefect_home: Path) -> None:
    address = "http://ana:s3cr3t@[::1/api"
    told = subprocess.run(
        [PVAR, "deploy"],
        env={**os.environ, "PREFECT_HOME": str(prefect_home), "PREFECT_API_URL": address},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 2
    assert "error: Prefect's settings are invalid: " in told.stderr
    assert "Traceback" not in told.stderr
    assert "s3cr3t" not in told.stderr
