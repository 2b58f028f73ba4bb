"""Speed and memory of `pvar.preference_variance` on one core, beside a plain numpy broadcast.

python tests/benchmarks/variance_speed.py [--prompts 8000000] [--responses 5]
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from machine import describe_machine

import pvar

Floats = npt.NDArray[np.float32]


def broadcast(rewards: Floats) -> Floats:
    """The formula as one writes it first: all ordered pairs of all prompts at once."""
    num_responses = rewards.shape[1]
    with np.errstate(over="ignore"):
        preferences = 1 / (1 + np.exp(rewards[:, None, :] - rewards[:, :, None]))
    squares = ((preferences - np.float32(0.5)) ** 2).sum(axis=(1, 2))
    return squares / (num_responses * (num_responses - 1))


def best_seconds(compute: Callable[[Floats], object], rewards: Floats, *, repeats: int) -> float:
    """Shortest processor time of several runs: of one core, whatever else the machine does."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        compute(rewards)
        seconds.append(time.process_time() - start)
    return min(seconds)


def peak_bytes(compute: Callable[[Floats], object], rewards: Floats) -> int:
    """Highest memory allocated during the call, the result included, the input not."""
    tracemalloc.start()
    compute(rewards)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=8_000_000)
    parser.add_argument("--responses", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}")
    shape = (arguments.prompts, arguments.responses)
    rewards = 3 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    few = rewards[: arguments.prompts // 10]
    difference = np.abs(pvar.preference_variance(few) - broadcast(few)).max()
    print(
        f"{shape[0]:,} prompts, {shape[1]} responses, float32; results differ by {difference:.1e}"
    )
    for name, compute, data in (
        ("pvar.preference_variance", pvar.preference_variance, rewards),
        ("pvar.preference_variance_stderr", pvar.preference_variance_stderr, rewards),
        ("numpy broadcast", broadcast, few),
    ):
        seconds = best_seconds(compute, data, repeats=5)
        extra = peak_bytes(compute, data) / data.nbytes
        rate = len(data) / seconds / 1e6
        print(f"{name:33s} {rate:7.2f} M prompts/s, input + {extra:.2f} × input of memory")


if __name__ == "__main__":
    main()
