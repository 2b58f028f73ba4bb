"""The stages of a large pool of prompts: time, memory and requests to the store.

    python -m tests.benchmarks.large_pool [--prompts 10000] [--responses 8] [--folder FOLDER]

Each stage runs in a process of its own, on made-up prompts of 200 characters and answers of 300,
whose sampler and reward model need next to no time. Printed are seconds, seconds of processor time,
the peak of the resident memory, and the requests to the store for each shard.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from flows.pinning import pin
from pvar.config import PipelineConfig
from pvar.digest import response_id
from pvar.ports import Ports, Rejection, SampleRequest, ScoreRequest, Store
from pvar.records import Response, Score
from tests.artifacts import Replaced
from tests.benchmarks.machine import describe_machine
from tests.workflow import Workflow, fake_settings, open_wiring

STAGES = ("ingest", "sample", "score-fake", "select", "pair")
SEED_OF_PROMPTS = 1


class CountingStore:
    """A store that counts the calls of each method."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if callable(found):
            self.calls[name] += 1
        return found


class QuickSampler:
    """Answers of made-up words."""

    def __init__(self) -> None:
        self._words = _words()

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        rng = random.Random(seed)
        responses = []
        for request in requests:
            for index in range(num_responses):
                text = " ".join(rng.choices(self._words, k=46))
                name = response_id(request.prompt_id, index, text)
                responses.append(Response(request.prompt_id, name, index, text, 60, "stop"))
        return responses, []

    def close(self) -> None:
        pass


class QuickScorer:
    """Rewards from the ids."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [
            Score(each.prompt_id, each.response_id, int(each.response_id, 16) % 1000 / 250 - 2)
            for each in requests
        ]

    def close(self) -> None:
        pass


def _words() -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(20_000)]


def _write_prompts(path: Path, num_prompts: int) -> None:
    words, rng = _words(), random.Random(SEED_OF_PROMPTS)
    with path.open("w") as file:
        for _ in range(num_prompts):
            text = " ".join(rng.choices(words, k=rng.randint(15, 46)))
            file.write(json.dumps({"prompt": text}) + "\n")


def _workflow(folder: Path, num_responses: int) -> Workflow:
    wiring = open_wiring(folder / "home")
    changes = {
        "ingest.eval_fraction": 0.02,
        "sample.num_responses": num_responses,
        "score.reward_models": [{"kind": "fake"}],
        "runtime.sampled_responses_per_shard": 8192,
        "runtime.responses_per_shard": 32768,
    }
    settings = fake_settings(folder / "prompts.jsonl", **changes)
    return Workflow(pin(PipelineConfig.model_validate(settings), wiring), wiring)


def _run_stage(folder: Path, num_responses: int, name: str) -> None:
    flow = _workflow(folder, num_responses)
    store = CountingStore(flow.store)
    own = {
        "store": store,
        "sampler": lambda *_: QuickSampler(),
        "scorer": lambda *_: QuickScorer(),
    }
    job = replace(flow.job(name), ports=cast(Ports, Replaced(flow.wiring, own)))
    from tasks.engine.stage import run_stage

    began, began_cpu = time.monotonic(), time.process_time()
    node = flow.nodes[name]
    outcome = run_stage(node.stage, node.recipe, job)
    rows = outcome.artifact.manifest.row_counts
    calls = sum(store.calls.values()) - store.calls["uri"]
    print(
        f"| {name} | {time.monotonic() - began:.1f} | {time.process_time() - began_cpu:.1f} "
        f"| {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB "
        f"| {outcome.shards_made} | {calls / max(outcome.shards_made, 1):.1f} | {rows.rows_out} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--stage", choices=STAGES)
    options = parser.parse_args()
    if options.stage:
        _run_stage(options.folder, options.responses, options.stage)
        return
    print(describe_machine())
    print("| stage | seconds | of processor time | peak memory | shards | requests | rows out |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        _write_prompts(folder / "prompts.jsonl", options.prompts)
        given = ["--folder", name, "--responses", str(options.responses)]
        for stage in STAGES:
            command = [sys.executable, "-m", "tests.benchmarks.large_pool", "--stage", stage]
            subprocess.run([*command, *given], check=True)


if __name__ == "__main__":
    main()
