"""A step of `make setup` shows what uv does, but for the list of what it installed."""

import subprocess
import sys

import pytest

from infra import setup_step
from infra.setup_step import without_list

PLAIN = b"""Downloading numpy (16.1MiB)
 Downloaded numpy
Installed 2 packages in 85ms
 + numpy==2.4.6
 ~ pvar==0.1.0 (from file:///pvar)
"""
COLOURED = (
    b"\x1b[2K\r\x1b[2mInstalled \x1b[1m1 package\x1b[0m \x1b[2min 7ms\x1b[0m\r\n"
    b" \x1b[32m+\x1b[39m \x1b[1mnumpy\x1b[0m\x1b[2m==2.4.6\x1b[0m\r\n"
)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_list_is_left_out_wherever_the_output_is_cut(size: int) -> None:
    def shown(output: bytes) -> bytes:
        parts = (output[at : at + size] for at in range(0, len(output), size))
        return b"".join(without_list(parts))

    assert shown(PLAIN) == PLAIN[: PLAIN.index(b" + numpy")]
    assert shown(COLOURED) == COLOURED[: COLOURED.index(b" \x1b[32m+")]
    assert shown(b" + 1 is not the end") == b" + 1 is not the end"


def test_what_redraws_a_line_is_not_held_back() -> None:
    parts = iter([b"\r[1/3] numpy", b"\r[2/3] scipy"])
    output = without_list(parts)
    assert next(output) == b"\r[1/3] numpy"


def test_a_step_announces_itself_and_fails_as_its_command_does() -> None:
    says = "print(' + numpy==2.4.6'); print('done'); raise SystemExit(3)"
    done = subprocess.run(
        [
            sys.executable,
            setup_step.__file__,
            "two packages",
            sys.executable,
            "-c",
            says,
        ],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "setup: two packages\ndone\n"
