"""Processes that are started and stopped together.

Each process runs in its own session, so Ctrl-C at the terminal reaches only the parent, which then
stops the processes in reverse order. Their child processes (runs of a worker, workers of a server)
are stopped, too, even if the process that started them has already ended.

The standard input of each process is a pipe from the parent. A process ends itself when the pipe
closes, which also happens when the parent is killed with SIGKILL.
"""

import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

from pvar.errors import StageError
from tasks.engine.progress_log import ProgressLog

START_SECONDS = 600.0
"""Timeout of a start. The first one creates a database, possibly on a busy machine."""

GRACE_SECONDS = 15.0
"""Time between SIGTERM and SIGKILL, in which a run reports that it was stopped."""

POLL_SECONDS = 0.5
NUM_LOG_LINES = 12


class _Service(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Services:
    """The processes. As a context manager, it stops all of them when the body ends."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._services: list[_Service] = []
        self._seen: set[psutil.Process] = set()

    def start(
        self, name: str, module: str, *arguments: str, environment: Mapping[str, str]
    ) -> None:
        """Start `python -m module arguments…`, with its output in `logs/name.log`."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name.lower().replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.services", module, *arguments],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._services.append(_Service(name, process, log))

    def wait_until(self, is_ready: Callable[[], bool], what: str) -> None:
        """Wait until it is ready. Raises StageError on a timeout or if a process ends."""
        deadline = time.monotonic() + START_SECONDS
        with ProgressLog(what, "starting"):
            while not is_ready():
                self.check()
                if time.monotonic() > deadline:
                    raise StageError(
                        f"{what} is not ready after {START_SECONDS:.0f} s; see the logs in "
                        f"{self._logs}"
                    )
                time.sleep(POLL_SECONDS)

    def wait(self) -> None:
        """Wait until a process ends, then raise StageError with its name and last log lines."""
        while True:
            self.check()
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Raise StageError if a process has ended."""
        for service in self._services:
            code = service.process.poll()
            if code is not None:
                raise StageError(
                    f"{service.name} ended with code {code}, so the other services are stopped; "
                    f"the end of {service.log}:\n{_tail(service.log)}"
                )
            self._seen |= _tree(service.process.pid)
        self._seen = {process for process in self._seen if process.is_running()}

    def stop(self) -> None:
        """Stop all processes, the last one first, so that runs can report to running servers."""
        while self._services:
            service = self._services.pop()
            _end(_tree(service.process.pid))
            service.process.communicate()  # closes the pipe
        _end(self._seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _tree(pid: int) -> set[psutil.Process]:
    """A process and all its descendants."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return {process, *process.children(recursive=True)}
    return set()


def _end(processes: set[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=GRACE_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_SECONDS)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-NUM_LOG_LINES:]) or "  (empty)"


def _run(module: str, arguments: list[str]) -> None:
    """The body of a process: run the module, and a thread that waits until the pipe closes."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_starter() -> None:
    while os.read(0, 1):  # the parent writes nothing
        pass
    _end(_tree(os.getpid()) - {psutil.Process()})
    os._exit(1)


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2:])
