"""`make demo` ends well when the gate honestly refuses, and not when something failed."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("code", "ends", "says"), [(0, 0, ""), (3, 0, "that is a result"), (1, 2, ""), (4, 2, "")]
)
def test_the_demo_takes_a_refusal_for_a_result(
    code: int, ends: int, says: str, tmp_path: Path
) -> None:
    pvar = tmp_path / "pvar"
    pvar.write_text(f"#!/bin/sh\nexit {code}\n")
    pvar.chmod(0o755)
    done = subprocess.run(
        ["make", "--old-file=setup", "demo", f"BIN={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == ends, done.stderr
    assert says in done.stdout
