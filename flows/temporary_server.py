"""A temporary Prefect server for one command, used if PREFECT_API_URL is not set.

Prefect can start such a server itself, but only when a flow is called. Here it starts in a second
process while this process imports the modules of the run, which halves the time to the first stage.
It uses the user's database (PREFECT_HOME), so that `prefect server start` shows the run later. It
ends at once when its standard input closes, which happens however the command dies; a command that
ends lets it stop in order.
"""

import atexit
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from urllib.error import URLError
from urllib.request import urlopen

from flows.prefect_database import create_prefect_database
from flows.server import AGAIN, api_url, connected_client, prefect_explained
from pvar.errors import StageError
from tasks.engine.child_processes import child_environment, end_with_parent
from tasks.engine.progress_log import ProgressLog

STARTUP_TIMEOUT_SECONDS = 600.0

CLOSE_SECONDS = 5
"""How long the server that stops waits for connections that its command left open."""

STOP_SECONDS = 60.0
"""After which a server that does not stop is killed; its database is left as after any kill."""

SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    # Both settings avoid importing every integration. Without the second one, a later server would
    # assume that the blocks are registered.
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}


@contextmanager
def temporary_server() -> Iterator[None]:
    """A Prefect server while the body runs. A configured server is used instead and must answer."""
    if os.environ.get("PREFECT_API_URL"):
        with _configured_server():
            yield
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:  # reserves a free port
        port = listener.getsockname()[1]
        process = _start(listener)
    # Stop it at exit, not when the body ends: Prefect sends its last logs during shutdown.
    atexit.register(_stop, process)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value():  # from Prefect's profile, which takes a second to read
        _stop(process)
        with _configured_server():
            yield
        return
    with ProgressLog("temporary Prefect server", "starting"):
        _import_what_runs_need()
        _wait_until_healthy(f"http://127.0.0.1:{port}/api/health", process)
    settings = {
        PREFECT_API_URL: f"http://127.0.0.1:{port}/api",
        # No automation checks heartbeats here, and each stage would wait a second for the last one.
        "flows.heartbeat_frequency": None,
    }
    with (
        temporary_settings(settings),
        prefect_explained(f"http://127.0.0.1:{port}/api", advice=AGAIN),
    ):
        yield


@contextmanager
def _configured_server() -> Iterator[None]:
    with connected_client():
        pass
    with prefect_explained(api_url()):
        yield


def _start(listener: socket.socket) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "flows.temporary_server", str(listener.fileno())],
        env=child_environment() | SERVER_SETTINGS,
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches only the command, which then reports its end
        pass_fds=[listener.fileno()],
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Stop the server and wait for its end, but no longer than until a further Ctrl-C."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)  # at the end of its input, which closes later, it would not stop
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _import_what_runs_need() -> None:
    """Import the modules that every run needs. It takes about as long as the server's start."""
    for module in ("flows.pipeline", "mlflow", "scipy.stats", "matplotlib.figure"):
        import_module(module)


def _wait_until_healthy(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + STARTUP_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StageError(
                f"the temporary Prefect server ended with code {process.returncode}; fix the error "
                "above, or start a server with `prefect server start` and set "
                "PREFECT_API_URL=http://127.0.0.1:4200/api"
            )
        try:
            with urlopen(address, timeout=5):  # noqa: S310  an address of ours
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise StageError(
        f"the temporary Prefect server did not answer within {STARTUP_TIMEOUT_SECONDS:.0f} s; "
        "start one with `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api"
    )


def _serve(listener: socket.socket) -> None:
    """The server's process: serve until SIGTERM, or end with the command, also while it starts."""
    end_with_parent()
    create_prefect_database()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    config = uvicorn.Config(
        app, log_level="error", lifespan="on", timeout_graceful_shutdown=CLOSE_SECONDS
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
