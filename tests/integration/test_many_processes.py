"""Training over two processes of one machine (gloo): the same curve, and nobody left behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.engine.tables import TrainStep
from tasks.stages.train import held_out_margins
from tests.services.processes import wait_until
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import Workflow, start_workflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ROOT = Path(__file__).parents[2]
UNTIL_TRAIN = (
    *("ingest", "sample", "score-vader", "select", "pair"),
    *("held-out-sample", "held-out-score-vader", "held-out-select", "held-out-pair"),
)
# 9 pairs: three steps of 4 an epoch, the last of which is not whole by itself. By accelerate it
# would be filled up where there are several processes, and only there.
SELECT = {"budget": {"count": 9}}
TRAIN = {"learning_rate": 3e-3, "pairs_per_step": 4, "num_epochs": 7, "precision": "float32"}


def settings(policy: Path, num_processes: int) -> dict[str, Any]:
    runtime = {
        "num_processes": num_processes,
        "pairs_per_device": 2 // num_processes,
        "checkpoint_steps": 4,
        "lease_seconds": 60,
    }
    return {
        "policy": str(policy), "select": SELECT, "train": TRAIN, "runtime": runtime,
        "evaluate.margins": True,
    }  # fmt: skip


def workers(home: Path) -> list[int]:
    """Processes on this machine whose command names a folder below `home`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:  # it has just ended
            continue
        if b"tasks.training.worker" in command and str(home).encode() in command:
            found.append(int(entry.parent.name))
    return found


def checkpoints(flow: Workflow) -> list[int]:
    prefix = f"{flow.nodes['train'].keys.root}/checkpoints/"
    keys = [info.key.removeprefix(prefix) for info in flow.store.list(prefix)]
    return sorted(int(key[:8]) for key in keys if key.endswith(".json") and "/" not in key)


def steps(flow: Workflow) -> list[TrainStep]:
    return flow.artifact("train").rows("steps.parquet", TrainStep)


def test_two_processes_train_as_one_also_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Modules of the user's in the working folder shadow none of ours.
    for name in ("tasks", "flows", "infra", "pvar"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    policy = save_language_model(tmp_path / "policy", seed=1)
    alone = start_workflow(tmp_path / "alone", **settings(policy, 1))
    alone.make(*UNTIL_TRAIN, "train")
    wanted = steps(alone)

    home = tmp_path / "two"
    two = start_workflow(home, **settings(policy, 2))
    two.make(*UNTIL_TRAIN)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.stage_process", str(home), json.dumps(settings(policy, 2)),
         two.nodes["train"].keys.manifest, "train"],
        cwd=ROOT,
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(
            lambda: bool(checkpoints(two)) or process.poll() is not None,
            "checkpoint",
            pause_seconds=0.02,
        )
        assert len(workers(home)) >= 2
    finally:
        process.send_signal(signal.SIGKILL)  # it alone: the others must notice by themselves
        process.wait()
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
    wait_until(lambda: not workers(home), "end of the workers")
    kept = checkpoints(two)
    assert kept
    time.sleep(0.5)
    assert checkpoints(two) == kept, "somebody still writes"

    two.make("train")

    found = steps(two)
    assert [step.step for step in found] == list(range(1, 22))
    assert [step.epoch for step in found] == pytest.approx([n / 3 for n in range(1, 22)])
    # The same pairs in each step. What is left is the order of float32 sums, over processes and
    # within them, which training amplifies: far below what a step changes (about 1e-2).
    assert [step.loss for step in found] == pytest.approx([s.loss for s in wanted], abs=2e-3)
    assert [step.margin for step in found] == pytest.approx([s.margin for s in wanted], abs=2e-2)
    assert [step.grad_norm for step in found[:4]] == pytest.approx(
        [step.grad_norm for step in wanted[:4]], rel=1e-3
    )
    measured, alone_measured = (held_out_margins(flow.artifact("train")) for flow in (two, alone))
    assert [row[:3] for row in measured] == [row[:3] for row in alone_measured]
    assert {row.step for row in measured} == {0, 5, 10, 15, 21}
    assert [row.margin for row in measured] == pytest.approx(
        [row.margin for row in alone_measured], abs=2e-2
    )
