"""A Prefect server of the tests' own: a process on a free port, with its own database and home.

It has all of Prefect's services (scheduler, automations), which the server inside
`prefect_test_harness` has not. Workers are processes too, as users start them.
"""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil

from tests.services.processes import NEVER_SECONDS, free_port, wait_until

ROOT = Path(__file__).parents[2]
PVAR = str(Path(sys.executable).with_name("pvar"))

QUICK = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_TRIGGERS_PROACTIVE_EVALUATION_LOOP_SECONDS": "2",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    "OMP_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "0",
}
"""What users wait for is shortened, so that tests do not."""

WITHOUT_BLOCKS = {
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}
"""A server registers every integration's blocks first: a third of its start."""


@dataclass(frozen=True)
class PrefectServer:
    """A running server."""

    api: str
    home: Path

    def environment(self) -> dict[str, str]:
        """With which a process reaches it."""
        return {**QUICK, "PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.home)}

    @contextmanager
    def is_ours(self) -> Iterator[None]:
        """Within it, Prefect in this process talks to this server."""
        from prefect.settings import PREFECT_API_URL, temporary_settings

        # As for `pvar run`: without heartbeats, whose end each stage would wait for.
        with temporary_settings({PREFECT_API_URL: self.api, "flows.heartbeat_frequency": None}):
            yield

    @contextmanager
    def worker(self, pool: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of the pool, which is killed with its runs at the end."""
        name = environment.pop("name", "tests")
        log = self.home / f"worker-{pool}-{name}.log"
        with process(
            ["-m", "prefect", "worker", "start", "--pool", pool, "--name", name],
            self.environment() | environment,
            log,
        ) as started:
            yield started


@contextmanager
def running(home: Path) -> Iterator[PrefectServer]:
    """A server, until the body ends."""
    port = free_port()
    server = PrefectServer(f"http://127.0.0.1:{port}/api", home)
    home.mkdir(parents=True, exist_ok=True)
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    addresses = {"PREFECT_API_URL": "", "PREFECT_UI_URL": f"http://127.0.0.1:{port}"}
    environment = {**server.environment(), **WITHOUT_BLOCKS, **addresses}
    with process(command, environment, home / "server.log") as started:
        wait_until(lambda: _is_healthy(server.api) or started.poll() is not None, "the server")
        assert started.poll() is None, (home / "server.log").read_text()
        yield server


@contextmanager
def process(
    command: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process in a group of its own; it and its descendants are killed at the end."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        kill_tree(started)


def kill_tree(started: subprocess.Popen[Any]) -> None:
    """End a process and its descendants: a worker starts each run in a session of its own."""
    with suppress(psutil.NoSuchProcess):
        for descendant in psutil.Process(started.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                descendant.kill()
    started.kill()
    started.wait()


def _is_healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=NEVER_SECONDS) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
