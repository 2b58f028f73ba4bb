"""Nobody is told how the libraries are used, unless the user wants it."""

import os
import subprocess
import sys

import pytest

LIBRARIES = """
import flows
from mlflow.telemetry.utils import is_telemetry_disabled
from prefect._internal.analytics.enabled import is_telemetry_enabled
print(is_telemetry_disabled(), is_telemetry_enabled())
"""


def printed(script: str, **chosen: str) -> str:
    """By a process without the variables of CI, which would turn telemetry off."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=kept | chosen, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_libraries_tell_nobody_of_their_use() -> None:
    assert printed(LIBRARIES) == "True False"


@pytest.mark.parametrize("choice", ["false", "1"])
def test_what_the_user_chose_is_kept(choice: str) -> None:
    script = "import flows, os; print(os.environ['DO_NOT_TRACK'])"
    assert printed(script, DO_NOT_TRACK=choice) == choice
