"""The processes of a study or a backtest: a limited number at once, each with a part of the work.

Their output goes to standard error, each line with the name of its part. If this process ends, they
end; if it is interrupted, they are ended before it is.
"""

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from flows.server import api_url
from tasks.engine.child_processes import child_environment, first_cause

POLL_SECONDS = 0.1
KEPT_LINES = 400
"""Number of last lines in which the cause of a failure is looked for."""


class PartEnd(NamedTuple):
    """How a part ended."""

    part: str
    error: str | None
    """None if the part is complete."""
    seconds: float


class _Running(NamedTuple):
    part: str
    process: "subprocess.Popen[str]"
    lines: "deque[str]"
    reader: threading.Thread
    began: float


def run_parts(
    run: str, parts: Sequence[str], *, at_once: int, module: str = "flows.study_member"
) -> Iterator[PartEnd]:
    """Run `python -m MODULE RUN PART` for each part, `at_once` side by side; yield their ends."""
    waiting, running = deque(parts), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_start(module, run, waiting.popleft()))
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                yield _end(each)
            time.sleep(POLL_SECONDS)
    finally:
        for each in running:
            assert each.process.stdin is not None
            each.process.stdin.close()  # ends it
            each.process.wait()


def _start(module: str, run: str, part: str) -> _Running:
    process = subprocess.Popen(
        [sys.executable, "-m", module, run, part],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches only the command, which then ends its parts
    )
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    reader = threading.Thread(target=_relay, args=(process, part, lines), daemon=True)
    reader.start()
    return _Running(part, process, lines, reader, time.monotonic())


def _environment() -> dict[str, str]:
    """The address of this run's server, and nothing of this run itself: a part is no part of it."""
    kept = {
        name: value
        for name, value in child_environment().items()
        if not name.startswith("PREFECT__")
    }
    return kept | {"PREFECT_API_URL": api_url()}


def _relay(process: "subprocess.Popen[str]", part: str, lines: "deque[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        print(f"{part}: {line}", end="", file=sys.stderr, flush=True)  # noqa: T201


def _end(each: _Running) -> PartEnd:
    each.reader.join()
    assert each.process.stdin is not None
    each.process.stdin.close()
    code = each.process.returncode
    error = None if code == 0 else failure_cause(code, list(each.lines))
    return PartEnd(each.part, error, time.monotonic() - each.began)


def failure_cause(code: int, lines: list[str]) -> str:
    """Why a process ended with this code, from its last lines of output."""
    if code < 0:
        return f"its process was killed by signal {-code}"
    ours = next((line for line in reversed(lines) if line.startswith("error: ")), None)
    if ours is not None:
        return ours.removeprefix("error: ")
    return first_cause("\n".join(lines)) or f"its process ended with code {code}"
