"""Threads of PyTorch leave the processor to others while they wait."""

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SCRIPT = f"import flows, os; print([os.environ.get(name) for name in {NAMES}])"


@pytest.mark.parametrize(
    ("chosen", "used"),
    [
        ({}, [None, "2000"]),
        ({"GOMP_SPINCOUNT": "7"}, [None, "7"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None]),
    ],
)
def test_threads_wait_busily_for_a_short_time_unless_the_user_chose(
    chosen: dict[str, str], used: list[str | None]
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, env=environment | chosen, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(used)
