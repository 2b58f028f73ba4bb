"""An engine's processes end with the process that started it; stand-ins for vLLM's do here."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.engines.vllm_sampler import OWNER
from tests.services.processes import NEVER_SECONDS

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="processes are watched on Linux only"
)

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("depth", "delay_seconds"),
    [
        pytest.param(0, 0, id="the core works"),
        pytest.param(1, 0, id="a worker below the core"),
        pytest.param(1, 1, id="killed while it starts"),
    ],
)
def test_a_killed_owner_leaves_no_engine(depth: int, delay_seconds: int) -> None:
    command = [sys.executable, "-m", "tests.services.engine_processes"]
    with subprocess.Popen(
        [*command, str(depth), str(delay_seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        _, worker, parent = owner.stdout.readline().split()
        if not delay_seconds:
            assert owner.stdout.readline() == "watching\n"
        engine = [psutil.Process(int(pid)) for pid in {worker, parent} if int(pid) != owner.pid]
        assert len(engine) == depth + 1
        owner.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs(engine, timeout=NEVER_SECONDS)
    assert left == []


def test_a_process_without_an_owner_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import infra.engines.vllm_worker, threading; print(threading.active_count())"
    monkeypatch.delenv(OWNER, raising=False)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"1\n"
