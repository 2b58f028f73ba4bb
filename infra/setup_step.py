"""One step of `make setup`: print its title, run uv, and suppress its list of packages.

    python3.11 infra/setup_step.py "PyTorch, 200 MB" .venv/bin/uv pip install torch==2.13.0

uv's progress is shown: bars on a terminal, otherwise a line per large download. Only its list of
installed packages (` + numpy==2.4.6`, about 200 lines) is suppressed. The script runs before
anything is installed, so it uses only the standard library of a POSIX system.
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
    """Run the command, print its output without the list to standard error; its exit code."""
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
    """The parts of an output as they arrive, without the lines of the list.

    An incomplete line is held back only if it begins like a line of the list.
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
