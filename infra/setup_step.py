"""One step of `make setup`: say what it is, run uv, and leave out its list of packages.

    python3.11 infra/setup_step.py "PyTorch, 200 MB" .venv/bin/uv pip install torch==2.13.0

What uv shows while it works stays: bars on a terminal, elsewhere a line for each large download.
Only its list of what is installed now (` + numpy==2.4.6`, some 200 lines) is dropped. It runs
before anything is installed, so it needs nothing but the standard library of a POSIX system.
"""

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import suppress

COLOUR = rb"(?:\x1b\[[0-9;]*m)*"
LISTED = re.compile(rb"^ " + COLOUR + rb"[-+~]" + COLOUR + rb" [^\n]*\n", re.MULTILINE)
"""A line of the list: installed, removed or reinstalled."""


def run(command: Sequence[str]) -> int:
    """Run the command with its output, less the list, on standard error; its exit code."""
    is_terminal = sys.stderr.isatty()
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    if is_terminal:  # bars are as wide as the real terminal
        size = fcntl.ioctl(sys.stderr, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    with subprocess.Popen(command, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        for part in without_list(_read(ours)):
            sys.stderr.buffer.write(part)
            sys.stderr.flush()
    os.close(ours)
    return process.returncode


def without_list(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The parts of an output as they come, without the lines of the list.

    A line that is not complete is held back only if it begins like one of the list.
    """
    held = b""
    for part in parts:
        text = LISTED.sub(b"", held + part)
        begin = text.rfind(b"\n") + 1
        held = text[begin:] if text[begin:].startswith(b" ") else b""
        yield text.removesuffix(held) if held else text
    yield held


def _read(descriptor: int) -> Iterator[bytes]:
    with suppress(OSError):  # a terminal whose other end is closed fails instead of ending
        while part := os.read(descriptor, 65536):
            yield part


if __name__ == "__main__":
    print(f"setup: {sys.argv[1]}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(run(sys.argv[2:]))
