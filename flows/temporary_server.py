"""A Prefect server of a command's own, where PREFECT_API_URL names none.

Prefect starts one by itself, but only once a flow is called; here it starts in a second process
while this one imports what the run needs, which halves the time to the first stage. Its database
is the user's (PREFECT_HOME), so that `prefect server start` shows the run later. It ends with the
command, however that ends: it watches its standard input, which closes when the command dies.
"""

import atexit
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from urllib.error import URLError
from urllib.request import urlopen

from pvar.errors import StageError
from tasks.engine.child_processes import child_environment
from tasks.engine.progress_log import ProgressLog

STARTUP_TIMEOUT_SECONDS = 600.0

SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    # Both would import every integration; without the second, a later server would believe that the
    # first had been done.
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}


@contextmanager
def temporary_server() -> Iterator[None]:
    """A Prefect server for as long as the body runs; if one is configured, it has to answer."""
    if os.environ.get("PREFECT_API_URL"):
        _refuse_silent_server()
        yield
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:  # a port that nobody else takes
        port = listener.getsockname()[1]
        process = _start(listener)
    # Not when the body ends: Prefect sends its last logs while the interpreter shuts down.
    atexit.register(_stop, process)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value():  # by Prefect's profile, which takes a second to read
        _stop(process)
        _refuse_silent_server()
        yield
        return
    with ProgressLog("temporary Prefect server", "starting"):
        _import_what_runs_need()
        _wait_until_healthy(f"http://127.0.0.1:{port}/api/health", process)
    settings = {
        PREFECT_API_URL: f"http://127.0.0.1:{port}/api",
        # Nobody would miss a heartbeat here, and each stage waits a second for its last one.
        "flows.heartbeat_frequency": None,
    }
    with temporary_settings(settings):
        yield


def _refuse_silent_server() -> None:
    from flows.server import connected_client

    with connected_client():
        return


def _start(listener: socket.socket) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "flows.temporary_server", str(listener.fileno())],
        env=child_environment() | SERVER_SETTINGS,
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the command, which still has its end to report
        pass_fds=[listener.fileno()],
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.communicate()


def _import_what_runs_need() -> None:
    """Every run needs these; they take as long as the server takes to start."""
    for module in ("flows.pipeline", "mlflow", "scipy.stats", "matplotlib.figure"):
        import_module(module)


def _wait_until_healthy(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + STARTUP_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StageError(
                f"the temporary Prefect server ended with code {process.returncode} (its message "
                "is above); repair it, or start one with `prefect server start` and set "
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
    """The server's process: serve until standard input closes or a signal comes."""
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    config = uvicorn.Config(app, log_level="error", lifespan="on")
    server = uvicorn.Server(config)

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
