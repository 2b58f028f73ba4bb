"""The sampling plan: whom it chooses, and what it finds in simulated and in real pools."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from pvar.adaptive import choose_prompts
from pvar.errors import ConfigError, InputError
from pvar.variance import preference_variance
from tests.benchmarks.adaptive_replay import replay_plan

POOL = Path(__file__).parents[4] / "shared/data/preference_pool/pool.jsonl.gz"


def choose(rewards, num_new, *, num_sampled=None, max_responses=4):
    rewards = np.array(rewards, float)
    num_scored = np.isfinite(rewards).sum(axis=1)
    return choose_prompts(
        preference_variance(rewards),
        num_scored=num_scored,
        num_sampled=num_scored if num_sampled is None else np.array(num_sampled),
        max_responses=max_responses,
        num_new=num_new,
    ).tolist()


def test_the_highest_variance_gets_the_next_response():
    assert choose([[0.0, 0.1], [0.0, 5.0], [0.0, 1.0]], 1) == [False, True, False]
    assert choose([[0.0, 0.1], [0.0, 5.0], [0.0, 1.0]], 2) == [False, True, True]


def test_of_equal_variances_the_less_certain_comes_first():
    # Both have PVar 0; after 2 of 4 the forecast is √(1/2 − 1/4) c, after 3 it is √(1/3 − 1/4) c.
    assert choose([[1.0, 1.0, 1.0], [1.0, 1.0, math.nan]], 1) == [False, True]


def test_prompts_without_two_rewards_come_before_all_others():
    assert choose([[0.0, 50.0], [0.0, math.nan]], 1) == [False, True]


def test_ties_go_to_the_earlier_row():
    assert choose([[0.0, 1.0]] * 3, 2) == [True, True, False]


def test_finished_prompts_get_nothing_even_if_their_rewards_are_missing():
    rewards = [[0.0, 9.0, 0.0, 9.0], [math.nan] * 4, [0.0, 0.1, math.nan, math.nan]]
    assert choose(rewards, 3, num_sampled=[4, 4, 2]) == [False, False, True]


@pytest.mark.parametrize(("max_responses", "num_new"), [(1, 1), (4, 0)])
def test_an_impossible_round_is_refused(max_responses, num_new):
    with pytest.raises(ConfigError, match="expected at least 2 and 1"):
        choose([[0.0, 1.0]], num_new, max_responses=max_responses)


def test_counts_of_other_prompts_are_refused():
    with pytest.raises(InputError, match=r"num_sampled has shape \(1,\), but pvar has \(2,\)"):
        choose([[0.0, 1.0], [0.0, 1.0]], 1, num_sampled=[2])


def synthetic_pool(rng, num_prompts=1000, num_responses=8):
    """Normal rewards whose spread differs between prompts as exp(N(0, 1))."""
    spread = np.exp(rng.normal(size=(num_prompts, 1)))
    return spread * rng.normal(size=(num_prompts, num_responses))


def test_a_replay_spends_what_it_may_and_no_more():
    pool = synthetic_pool(np.random.default_rng(0), num_prompts=101)
    replay = replay_plan(pool, cost_share=0.4)
    assert replay.num_sampled.sum() == round(0.4 * 101 * 8)
    assert replay.num_sampled.min() >= 2
    assert replay.num_sampled.max() <= 8
    assert replay.cost_share == pytest.approx(0.4, abs=1e-3)


def test_the_whole_cost_finds_everything():
    replay = replay_plan(synthetic_pool(np.random.default_rng(0)), cost_share=1.0)
    assert replay.recall == 1
    assert replay.value_share == pytest.approx(1)


def test_half_the_cost_finds_nine_tenths_of_a_synthetic_top():
    recalls = [
        replay_plan(synthetic_pool(np.random.default_rng(seed)), cost_share=0.5).recall
        for seed in range(10)
    ]
    assert np.mean(recalls) > 0.9


@pytest.mark.skipif(not POOL.exists(), reason=f"the shared response pool is not at {POOL}")
def test_half_the_cost_finds_most_of_a_real_top():
    """400 prompts whose clipped rewards are near coin flips: the top is narrow and hard to find.

    Uniform sampling finds less than half of it at this cost (tests/benchmarks/README.md).
    """
    rewards: dict[int, list[float]] = {}
    with gzip.open(POOL, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            rewards.setdefault(row["prompt_id"], []).append(row["reward"])
    pool = np.array(list(rewards.values()))
    replays = [
        replay_plan(np.random.default_rng(seed).permuted(pool, axis=1), cost_share=0.5)
        for seed in range(20)
    ]
    assert np.mean([replay.recall for replay in replays]) > 0.75
    assert np.mean([replay.value_share for replay in replays]) > 0.97


@pytest.mark.parametrize("cost_share", [0.2, 1.1])
def test_a_cost_below_two_each_or_above_all_is_refused(cost_share):
    with pytest.raises(ConfigError, match=r"expected 0\.25 to 1"):
        replay_plan(np.zeros((10, 8)), cost_share=cost_share)


def test_an_incomplete_pool_cannot_be_replayed():
    with pytest.raises(InputError, match="missing rewards"):
        replay_plan([[1.0, math.nan]], cost_share=1.0)
