"""Recall of the true top 10 % by PVar against the share of the responses sampled.

    python tests/benchmarks/adaptive_recall.py [--pool ../shared/data/preference_pool/pool.jsonl.gz]

The truth is PVar over all K responses. Beside the plan of `pvar.adaptive`: the first responses of
every prompt alike (uniform), and successive halving (one more response each round for a share of
the prompts that shrinks geometrically to the tenth).
"""

import argparse
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from adaptive_replay import replay_plan
from machine import describe_machine

import pvar

Pool = npt.NDArray[np.float64]
COSTS = (0.4, 0.5, 0.6, 0.7, 0.8)


class Found(NamedTuple):
    """How well a way of sampling did, averaged over pools."""

    recall: float
    value_share: float
    """Mean true PVar of the selection over that of the true top."""


def assess(found: Pool, truth: Pool) -> Found:
    num_top = round(len(truth) / 10)
    selection = truth[np.argsort(-found, kind="stable")[:num_top]]
    top = np.sort(truth)[-num_top:]
    return Found(float(np.mean(selection >= top[0])), float(selection.mean() / top.mean()))


def seen_variance(pool: Pool, num_sampled: npt.NDArray[np.intp]) -> Pool:
    return pvar.preference_variance(pool, mask=np.arange(pool.shape[1]) < num_sampled[:, None])


def uniform(pool: Pool, cost: float) -> Found:
    """⌊K · cost⌋ responses of every prompt, and one more of the first prompts for the remainder."""
    total = round(cost * pool.size)
    num_sampled = np.full(len(pool), total // len(pool))
    num_sampled[: total % len(pool)] += 1
    return assess(seen_variance(pool, num_sampled), pvar.preference_variance(pool))


def halving(pool: Pool, cost: float) -> Found:
    num_prompts, max_responses = pool.shape
    budget = round(cost * pool.size) - 2 * num_prompts
    rounds = np.arange(max_responses - 2)

    def survivors(first: float) -> npt.NDArray[np.intp]:
        ratio = num_prompts / 10 / first
        return (first * ratio ** (rounds / rounds[-1])).astype(np.intp)

    sizes = np.linspace(num_prompts / 10, num_prompts, 200)
    first = max(size for size in sizes if survivors(size).sum() <= budget)
    num_sampled = np.full(num_prompts, 2)
    alive = np.arange(num_prompts)
    for count in survivors(first):
        variances = seen_variance(pool, num_sampled)[alive]
        alive = alive[np.argsort(-variances, kind="stable")[:count]]
        num_sampled[alive] += 1
    return assess(seen_variance(pool, num_sampled), pvar.preference_variance(pool))


def plan(pool: Pool, cost: float, round_share: float = 0.05) -> Found:
    replay = replay_plan(pool, cost_share=cost, round_share=round_share)
    return Found(replay.recall, replay.value_share)


def synthetic_pool(seed: int, num_responses: int) -> Pool:
    """1,000 prompts of normal rewards, whose spread differs between prompts as exp(N(0, 1))."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(size=(1000, 1))) * rng.normal(size=(1000, num_responses))


def read_pool(path: Path) -> Pool:
    rewards: dict[str, list[float]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            row = json.loads(line)
            rewards.setdefault(row["prompt_id"], []).append(row["reward"])
    return np.array(list(rewards.values()))


def mean(way: Callable[[Pool, float], Found], pools: list[Pool], cost: float) -> str:
    found = np.mean([way(pool, cost) for pool in pools], axis=0)
    return f"{100 * found[0]:.0f} % ({100 * found[1]:.1f} %)"


def print_table(name: str, pools: list[Pool]) -> None:
    print(f"\n{name}: recall (share of the true top's mean PVar)\n")
    print(
        "| share of responses | uniform | successive halving | plan, 5 % a round | 25 % a round |"
    )
    print("|---|---|---|---|---|")
    for cost in COSTS:
        ways = (uniform, halving, plan, lambda pool, cost: plan(pool, cost, 0.25))
        cells = " | ".join(mean(way, pools, cost) for way in ways)
        print(f"| {cost:.0%} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path("../shared/data/preference_pool/pool.jsonl.gz")
    parser.add_argument("--pool", type=Path, default=default)
    arguments = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}")
    for num_responses in (8, 16):
        pools = [synthetic_pool(seed, num_responses) for seed in range(20)]
        print_table(f"Synthetic, K = {num_responses}, 20 pools", pools)
    if not arguments.pool.exists():
        print(f"\nNo real pool at {arguments.pool}: left out")
        return
    real = read_pool(arguments.pool)
    shuffled = [np.random.default_rng(seed).permuted(real, axis=1) for seed in range(40)]
    print_table(f"{arguments.pool.name}, {len(real)} prompts, K = 8, 40 shuffles", shuffled)


if __name__ == "__main__":
    main()
