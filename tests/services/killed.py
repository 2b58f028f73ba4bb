"""Calls in a process of their own that is killed at a moment of its database.

The moments are events of SQLAlchemy, not times: the same on every machine.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from types import FunctionType
from typing import Any

import sqlalchemy

ROOT = Path(__file__).parents[2]


def alone(body: FunctionType, folder: Path) -> None:
    """Call the function of a module in a new process, from which it forks those that are killed.

    A fork of the tests' process would have the locks and connections of its other threads, and
    what earlier tests left behind.
    """
    script = (
        "import runpy, sys; from pathlib import Path; "
        "runpy.run_path(sys.argv[1])[sys.argv[2]](Path(sys.argv[3]))"
    )
    arguments = [body.__code__.co_filename, body.__name__, str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def killed_at_commit(number: int, call: Callable[[], object]) -> bool:
    """Whether the call had so many commits; it is killed before this one."""
    num_commits = 0

    def count(_: Any) -> None:
        nonlocal num_commits
        num_commits += 1
        if num_commits == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return _is_killed("commit", count, call)


def killed_at_statement(part: str, call: Callable[[], object]) -> bool:
    """Whether the call had a statement with these words; it is killed before it.

    If a child of the call's process has the statement, both are killed.
    """
    process: int | None = None

    def look(_: Any, __: Any, statement: str, *___: Any) -> None:
        if part in " ".join(statement.split()):
            if process not in (None, os.getpid()):
                os.kill(process, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def remembered() -> None:
        nonlocal process
        process = os.getpid()
        call()

    return _is_killed("before_cursor_execute", look, remembered)


def completes(call: Callable[[], object]) -> bool:
    """Whether the call ends without an error."""
    process = get_context("fork").Process(target=call)
    process.start()
    process.join()
    return process.exitcode == 0


def _is_killed(event: str, listener: Callable[..., None], call: Callable[[], object]) -> bool:
    def listening() -> None:
        sqlalchemy.event.listen(sqlalchemy.Engine, event, listener)
        call()

    process = get_context("fork").Process(target=listening)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == -signal.SIGKILL
