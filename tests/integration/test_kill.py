"""`kill -9` at a random moment of each stage, then the same again.

The moment is drawn from a seeded generator: after that many shards were recorded, or so long after
a stage of one shard has taken its lease. Shards are small, so that a kill falls between and into
them; nothing in the product waits for it. No killed process
could have ended, however late the kill is on a busy machine: the test holds something it needs.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.exit_codes import DONE, GATE_NOT_PASSED
from pvar.artifacts import Recipe
from tasks.engine.artifact import read_document
from tasks.engine.lease import try_acquire
from tasks.engine.stage import run_stage
from tasks.engine.tables import TrainStep
from tests.benchmark_files import MODEL, TEMPLATE, odds, write
from tests.services.chat_server import Asked, serving
from tests.services.loopback_http import Sent
from tests.services.prefect_server import PrefectServer
from tests.services.processes import wait_until
from tests.unit.infra.tiny_models import save_language_model
from tests.workflow import Workflow, fake_settings, start_workflow, write_prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ROOT = Path(__file__).parents[2]
SMALL_SHARDS: dict[str, Any] = {
    "sample.num_responses": 8,
    "runtime": {"sampled_responses_per_shard": 1, "responses_per_shard": 8, "lease_seconds": 60},
}
BEFORE: dict[str, list[str]] = {
    "ingest": [],
    "sample": ["ingest"],
    "score-vader": ["ingest", "sample"],
    "select": ["ingest", "sample", "score-vader"],
    "pair": ["ingest", "sample", "score-vader", "select"],
    "answers-opponent": ["ingest"],
}


@contextmanager
def a_process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is killed with its children at the end."""
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def records(flow: Workflow, name: str) -> int:
    """Recorded shards of a node."""
    shards = f"{flow.nodes[name].keys.root}/shards/"
    keys = [info.key.removeprefix(shards) for info in flow.store.list(shards)]
    return sum("/" not in key for key in keys)


def kill_when(
    flow: Workflow,
    changes: dict[str, Any],
    name: str,
    is_time: Callable[[], bool],
    *,
    delay: float,
    held: str | None = None,
) -> None:
    """Run a node in a process of its own and kill it some time after `is_time`.

    It waits where it would put `held` (the manifest), beyond any moment at which it may be killed.
    """
    held = held or flow.nodes[name].keys.manifest
    home = str(flow.wiring.settings.home)
    with a_process(
        sys.executable, "-m", "tests.stage_process", home, json.dumps(changes), held, name
    ) as process:
        wait_until(
            lambda: is_time() or process.poll() is not None,
            f"start of {name}",
            pause_seconds=0.02,
        )
        time.sleep(delay)
        kill(process)
        assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", list(BEFORE))
def test_a_killed_stage_loses_one_shard_at_most(tmp_path: Path, name: str, seed: int) -> None:
    undisturbed = start_workflow(tmp_path / "undisturbed", **SMALL_SHARDS)
    undisturbed.make(*BEFORE[name], name)
    num_shards = len(undisturbed.artifact(name).manifest.shards)
    rng = random.Random(f"{name} {seed}")
    wanted_records = rng.randrange(num_shards)  # 0: into the first shard, or before it

    flow = start_workflow(tmp_path / "killed", **SMALL_SHARDS)
    if BEFORE[name]:
        flow.make(*BEFORE[name])
    leases = f"{flow.nodes[name].keys.root}/leases/"

    def is_time() -> bool:
        if wanted_records:
            return records(flow, name) >= wanted_records
        return any(True for _ in flow.store.list(leases))

    kill_when(flow, SMALL_SHARDS, name, is_time, delay=rng.uniform(0, 0.03))
    num_recorded = records(flow, name)
    again = flow.make(name)

    assert again.shards_made == num_shards - num_recorded
    assert {key: data for key, data in flow.objects(name).items() if "/" not in key} == {
        key: data for key, data in undisturbed.objects(name).items() if "/" not in key
    }
    assert again.artifact.manifest == undisturbed.artifact(name).manifest


TRAINING: dict[str, Any] = {
    "train": {
        "learning_rate": 0.003,
        "pairs_per_step": 2,
        "num_epochs": 8,
        "precision": "float32",
    },
    "runtime": {
        "sampled_responses_per_shard": 512,
        "pairs_per_device": 2,
        "checkpoint_steps": 3,
        "lease_seconds": 60,
    },
}


@pytest.mark.parametrize("lora", [None, {"rank": 4, "dropout": 0.1}], ids=["full", "lora"])
def test_killed_training_goes_on_from_its_newest_checkpoint(
    tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    policy = save_language_model(tmp_path / "policy", seed=1)
    changes = TRAINING | {"policy": str(policy), "train": TRAINING["train"] | {"lora": lora}}
    until_train = ("ingest", "sample", "score-vader", "select", "pair")
    undisturbed = start_workflow(tmp_path / "undisturbed", **changes)
    undisturbed.make(*until_train, "train")
    wanted = undisturbed.artifact("train").rows("steps.parquet", TrainStep)

    flow = start_workflow(tmp_path / "killed", **changes)
    flow.make(*until_train)
    checkpoints = f"{flow.nodes['train'].keys.root}/checkpoints/"

    def newest() -> int:
        keys = [info.key.removeprefix(checkpoints) for info in flow.store.list(checkpoints)]
        return max(
            (int(key[:8]) for key in keys if key.endswith(".json") and "/" not in key), default=0
        )

    delay = random.Random(7).uniform(0, 0.2)
    held = "/checkpoints/00000024.json"
    kill_when(flow, changes, "train", lambda: newest() >= 12, delay=delay, held=held)
    resumed_at = newest()
    assert 12 <= resumed_at < 24 < len(wanted)

    steps_made: list[int] = []
    node = flow.nodes["train"]
    job = replace(flow.job("train"), log_step=lambda step, _: steps_made.append(step))
    run_stage(node.stage, node.recipe, job)
    assert steps_made == list(range(resumed_at + 1, len(wanted) + 1))
    steps = flow.artifact("train").rows("steps.parquet", TrainStep)
    assert [step.step for step in steps] == [step.step for step in wanted]
    # The same data order and random numbers. What is left is the order of float32 sums, which may
    # differ between processes: far below the change from one step to the next (about 1e-2).
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in wanted], abs=1e-4)
    assert [step.margin for step in steps] == pytest.approx(
        [step.margin for step in wanted], abs=1e-3
    )
    assert list(flow.store.list(checkpoints)) == []


def test_a_killed_command_is_taken_up_by_the_same_command(
    tmp_path: Path, running_server: PrefectServer
) -> None:
    policy = save_language_model(tmp_path / "policy", seed=1)
    home = tmp_path / "home"
    home.mkdir()
    changes = TRAINING | {"policy": str(policy), "evaluate.opponent": "champion"}
    changes["runtime"] = TRAINING["runtime"] | {"sampled_responses_per_shard": 1}
    source = write_prompts(home / "prompts.jsonl")
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(fake_settings(source, **changes)))
    flow = start_workflow(home, **changes | {"evaluate.opponent": str(policy)})
    environment = {"PVAR_HOME": str(home), "PREFECT_API_URL": running_server.api}
    command = (str(Path(sys.executable).with_name("pvar")), "run", "--preset", str(preset))

    last_shard = try_acquire(flow.store, flow.nodes["sample"].keys.lease(20), ttl_seconds=3600)
    assert last_shard is not None  # it cannot be made: sampling is not over before the kill
    with a_process(*command, **environment) as process:
        wait_until(
            lambda: records(flow, "sample") >= 3 or process.poll() is not None,
            "sampling",
            pause_seconds=0.02,
        )
        assert process.stdout is not None
        assert process.poll() is None, process.stdout.read().decode()
        kill(process)
    last_shard.release()
    num_recorded = records(flow, "sample")
    recipe = read_document(flow.store, flow.nodes["sample"].keys.recipe, Recipe)
    assert recipe is not None
    assert 3 <= num_recorded < len(recipe.shards) == 21

    with a_process(*command, **environment) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode()
        assert process.wait() in (DONE, GATE_NOT_PASSED), said
    assert f"({21 - num_recorded} shards made" in said
    assert "is the champion" in said or "is registered, not promoted" in said

    undisturbed = start_workflow(
        tmp_path / "undisturbed", **changes | {"evaluate.opponent": str(policy)}
    )
    undisturbed.make("ingest", "sample", "score-vader", "select", "pair")
    for name in ("ingest", "sample", "score-vader", "select", "pair"):
        assert flow.artifact(name).manifest == undisturbed.artifact(name).manifest


NUM_QUESTIONS = 24


def benchmarked(folder: Path, **model: str) -> dict[str, Any]:
    """AlpacaEval with questions of the test's own, and a further model that takes it."""
    questions = [f"Question {number}" for number in range(NUM_QUESTIONS)]
    rows = [{"instruction": q, "output": f"baseline {q}", "generator": "gpt4"} for q in questions]
    outputs = [{"instruction": q, "output": "[0.75]", "generator": "tiny"} for q in questions]
    model = model or {"outputs": write(folder / "outputs.jsonl", outputs)}
    return {
        "benchmarks": [
            {
                "kind": "alpaca_eval",
                "questions": write(folder / "eval.jsonl", [{"instruction": q} for q in questions]),
                "baseline_outputs": write(folder / "baseline.jsonl", rows),
                "judge": {"kind": "alpaca_eval", "model": "m", "template": TEMPLATE},
                "answers": {"engine": "fake", "max_new_tokens": 12},
            }
        ],
        "benchmark_models": [{"name": MODEL, **model}],
        "runtime": {
            "sampled_responses_per_shard": 1,
            "judge_max_in_flight": 3,
            "judge_anchors": 0,  # calls are counted
            "lease_seconds": 60,
        },
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_judging_asks_again_what_was_in_flight_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(f"judging {seed}")
    num_before = rng.randrange(1, NUM_QUESTIONS - 3)  # the server then stops answering
    lock, is_killed, num_answered = threading.Lock(), threading.Event(), 0

    def judge(asked: Asked) -> Sent:
        nonlocal num_answered
        with lock:
            num_answered += 1
            is_answered = num_answered <= num_before
        if not is_answered:
            is_killed.wait()
        return odds(asked)

    changes = benchmarked(tmp_path / "files")
    flow = start_workflow(tmp_path / "home", **changes)
    name = f"judge-alpaca_eval-{MODEL}"
    flow.make("questions-alpaca_eval", f"answers-alpaca_eval-{MODEL}")
    with serving(judge) as server:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", server.base_url)
        kill_when(
            flow,
            changes,
            name,
            lambda: len(server.asked) >= num_before + 3,
            delay=rng.uniform(0, 0.05),
        )
        is_killed.set()
        num_asked = len(server.asked)
        assert num_before < num_asked <= num_before + 3
        kept = sum(1 for _ in flow.store.list("verdicts/"))
        assert num_before - 3 <= kept <= num_before
        assert flow.make(name).shards_made == 1
        assert len(server.asked) - num_asked == NUM_QUESTIONS - kept
    assert len(server.asked) <= NUM_QUESTIONS + 3
    summary = flow.artifact(name).manifest.summary
    assert (summary["num_judged"], summary["num_cached"]) == (NUM_QUESTIONS, kept)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_answers_to_a_benchmark_lose_one_shard_at_most(tmp_path: Path, seed: int) -> None:
    changes = benchmarked(tmp_path / "files", model="bundled:smollm2-135m-instruct")
    questions, name = "questions-alpaca_eval", f"answers-alpaca_eval-{MODEL}"
    undisturbed = start_workflow(tmp_path / "undisturbed", **changes)
    undisturbed.make(questions, name)
    rng = random.Random(f"answers {seed}")
    wanted = rng.randrange(1, NUM_QUESTIONS)

    flow = start_workflow(tmp_path / "killed", **changes)
    flow.make(questions)
    delay = rng.uniform(0, 0.03)
    kill_when(flow, changes, name, lambda: records(flow, name) >= wanted, delay=delay)
    num_recorded = records(flow, name)
    assert flow.make(name).shards_made == NUM_QUESTIONS - num_recorded
    assert flow.artifact(name).manifest == undisturbed.artifact(name).manifest
