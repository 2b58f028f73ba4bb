"""How long PyTorch's threads should spin before they sleep (decision 0013).

python tests/benchmarks/waiting_threads.py [--prompts 6] [--turns 2] [--busy 2]

Samples with SmolLM2-135M (K = 8, at most 64 tokens, the demo's prompts), a process per turn, alone
and beside --busy processes that do nothing but count, the ways of waiting in turns. Printed are
seconds on the wall, loading left out.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import describe_machine

WAYS = {
    "default": {},
    "`GOMP_SPINCOUNT=10000`": {"GOMP_SPINCOUNT": "10000"},
    "`GOMP_SPINCOUNT=2000`": {"GOMP_SPINCOUNT": "2000"},
    "`OMP_WAIT_POLICY=PASSIVE`": {"OMP_WAIT_POLICY": "PASSIVE"},
}
NUM_RESPONSES = 8


def sample_once(folder: Path, num_prompts: int) -> None:
    """What a child does: print the seconds that sampling took."""
    from sampling import read_requests

    from infra.engines.transformers_sampler import load_transformers_sampler
    from infra.hardware import read_hardware
    from pvar.number_format import resolve
    from pvar.sampler_config import SamplerSettings

    settings = SamplerSettings(
        max_new_tokens=64,
        max_prompt_tokens=256,
        temperature=0.7,
        dtype=resolve("auto", read_hardware(), learns=False),
    )
    sampler = load_transformers_sampler(folder, settings, num_prompts * NUM_RESPONSES)
    requests = read_requests(num_prompts)
    began = time.perf_counter()
    sampler.sample(requests, num_responses=NUM_RESPONSES, seed=0)
    print(time.perf_counter() - began)


def seconds(folder: Path, num_prompts: int, way: dict[str, str]) -> float:
    ours = {key: value for key, value in os.environ.items() if key not in {*way, *_waiting()}}
    child = subprocess.run(
        [sys.executable, __file__, "--child", folder, "--prompts", str(num_prompts)],
        env=ours | way,
        check=True,
        capture_output=True,
        text=True,
    )
    return float(child.stdout.split()[-1])


def _waiting() -> set[str]:
    return {key for way in WAYS.values() for key in way}


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(folder: Path, num_prompts: int, turns: int) -> str:
    """The cells of one row: each way's seconds, the ways taking turns."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(turns):
        for name, way in WAYS.items():
            found[name].append(seconds(folder, num_prompts, way))
    return " | ".join(", ".join(f"{each:.1f}" for each in values) for values in found.values())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--busy", type=int, default=2)
    parser.add_argument("--child", type=Path)
    given = parser.parse_args()
    if given.child:
        sample_once(given.child, given.prompts)
        return
    from infra.bundled_model import convert_bundled_model

    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}")
    print(f"| | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}")
    with TemporaryDirectory() as home:
        folder = Path(home)
        convert_bundled_model("smollm2-135m-instruct", folder)
        alone = measure(folder, given.prompts, given.turns)
        print(f"| {given.prompts} prompts, no other work | {alone} |", flush=True)
        fewer = max(1, given.prompts // 2)
        with busy_loops(given.busy):
            beside = measure(folder, fewer, given.turns)
        print(f"| {fewer} prompts, {given.busy} busy loops beside | {beside} |")


if __name__ == "__main__":
    main()
