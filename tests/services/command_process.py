"""Runs command lines one after the other in a process that imports the libraries only once.

For tests of what commands do, not of how a process begins and ends: to start `pvar run` takes ten
seconds of imports.

python -m tests.services.command_process ADDRESS    is what `commands_in` starts
"""

import contextlib
import os
import runpy
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import NamedTuple

from flows.exit_codes import DONE, GATE_NOT_PASSED


class CommandProcess(NamedTuple):
    """A process that runs commands."""

    connection: Connection
    log: Path

    def run(self, command: str) -> str:
        """Output of one command line. AssertionError with it if the command fails.

        A gate that does not pass is no failure of `pvar`.
        """
        start = self.log.stat().st_size
        self.connection.send(command)
        code = self.connection.recv()
        output = self.log.read_bytes()[start:].decode(errors="replace")
        good = (DONE, GATE_NOT_PASSED) if "pvar" in shlex.split(command) else (DONE,)
        assert code in good, f"{command}\n{output[-8000:]}"
        return output


@contextmanager
def commands_in(
    folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[CommandProcess]:
    """A process with this environment and working folder, until the body ends."""
    address = str(log.with_suffix(".socket"))
    with Listener(address) as listener, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.command_process", address],
            cwd=folder,
            env={**environment, "PWD": str(folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            with listener.accept() as connection:
                yield CommandProcess(connection, log)
            process.wait()
        finally:
            process.kill()
            process.wait()


def serve(address: str) -> None:
    """Run what arrives at the address, and answer with exit codes, until the other side closes."""
    before = dict(os.environ)
    with Client(address) as connection, contextlib.suppress(EOFError):
        while True:
            connection.send(run_line(connection.recv()))
            sys.stdout.flush()
            sys.stderr.flush()
            os.environ.clear()
            os.environ.update(before)


def run_line(line: str) -> int:
    """Exit code of one command line, `A=b program argument …`."""
    words = shlex.split(line)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = os.path.expandvars(value)
    try:
        return _run(*words)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:  # noqa: BLE001  the process goes on with the next command
        traceback.print_exc()
        return 1


def _run(program: str, *arguments: str) -> int:
    match program, *arguments:
        case "pvar", *_:
            from flows.cli import main

            main(arguments)
            return 0
        case "pytest", *_:
            import pytest

            # Some of its plugins are imported by now.
            known = "ignore::pytest.PytestAssertRewriteWarning"
            return pytest.main(["-p", "no:cacheprovider", "-W", known, *arguments])
        case "python", "-c", code:
            exec(code, {"__name__": "__main__"})
            return 0
        case "python", "-m", module:
            runpy.run_module(module, run_name="__main__")
            return 0
    return subprocess.run([sys.executable, "-m", program, *arguments]).returncode


if __name__ == "__main__":
    serve(sys.argv[1])
