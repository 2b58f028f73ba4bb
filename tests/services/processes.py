"""What every service needs: a free port, waiting for an answer, and an end by process id."""

import fcntl
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEVER_SECONDS = 1200.0
"""The only limit of the tests: what has not happened by now never will, however slow the machine.

Nothing passes because this time is over, so it costs nothing where all is well.
"""


def free_port() -> int:
    """A TCP port on loopback that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(
    is_ready: Callable[[], bool],
    what: str,
    *,
    pause_seconds: float = 0.25,
    timeout_seconds: float = NEVER_SECONDS,
) -> None:
    """Ask again and again; TimeoutError with `what` if it never comes."""
    deadline = time.monotonic() + timeout_seconds
    while not is_ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not within {timeout_seconds:.0f} s")
        time.sleep(pause_seconds)


def answers(port: int) -> bool:
    """Whether somebody accepts connections on loopback's `port`."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def stop(pid: int, marker: str, timeout_seconds: float = 120) -> None:
    """End our process `pid` (its command line holds `marker`): first asked, then killed."""
    if not _is_ours(pid, marker):
        return
    os.kill(pid, signal.SIGTERM)
    try:
        wait_until(
            lambda: not _is_ours(pid, marker),
            f"end of process {pid}",
            timeout_seconds=timeout_seconds,
        )
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)


def common_folder(factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that the test processes of one run have in common."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def shared(
    folder: Path,
    *,
    is_up: Callable[[], bool],
    start: Callable[[], object],
    stop: Callable[[], object],
) -> Iterator[None]:
    """A service in `folder` for several test processes: the first starts it, the last stops it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with locked(folder / "start.lock"):
            if not is_up():
                start()
        try:
            yield
        finally:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # somebody else still works with it
            else:
                stop()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def are_promised() -> bool:
    """Whether a missing service is a failure: in CI, or where the environment says so."""
    return os.environ.get("CI") == "true" or os.environ.get("PVAR_REQUIRE_SERVICES") == "1"


def require(service: str, programs: Iterable[str]) -> None:
    """Skip the test if a program is missing; fail where services are promised (CI)."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"{service} is not installed ({', '.join(missing)}); run: .ci/services {service}"
    if are_promised():
        pytest.fail(reason)
    pytest.skip(reason)


def _is_ours(pid: int, marker: str) -> bool:
    try:
        return marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
