"""Split-half reliability: known cases, chance, and what is refused."""

import numpy as np
import pytest

from pvar.errors import InputError
from pvar.reliability import split_half_reliability


def test_prompts_that_differ_in_spread_alone_are_told_apart_without_noise() -> None:
    """Two values in equal numbers would scatter; many of each make PVar nearly exact."""
    rng = np.random.default_rng(0)
    spread = np.linspace(0.1, 5, 40)
    rewards = rng.normal(size=(40, 400)) * spread[:, None]
    found = split_half_reliability(rewards, 200)
    assert found.num_prompts == 40
    assert found.spearman > 0.98
    assert found.overlap > 0.5


def test_like_prompts_agree_by_chance_alone() -> None:
    rewards = np.random.default_rng(1).normal(size=(400, 8))
    found = split_half_reliability(rewards, 4, num_splits=50)
    assert abs(found.spearman) < 0.05
    assert found.overlap == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("scale", [1.0, 1e-4], ids=["wins and losses", "saturated"])
def test_ties_are_no_agreement(scale: float) -> None:
    rewards = np.random.default_rng(6).integers(0, 2, size=(1000, 8))
    found = split_half_reliability(rewards.astype(float), 4, scale=scale, num_splits=40)
    assert found.overlap == pytest.approx(0.1, abs=0.03)


def test_more_responses_are_more_reliable() -> None:
    rng = np.random.default_rng(2)
    rewards = rng.normal(size=(300, 16)) * rng.uniform(0.1, 3, size=(300, 1))
    few, some, many = (split_half_reliability(rewards, size).spearman for size in (2, 4, 8))
    assert few < some < many


def test_missing_rewards_are_left_out_and_never_drawn() -> None:
    """Known rewards are equal in each prompt, so a NaN or a zero that was drawn would show."""
    rewards = np.full((20, 9), np.nan)
    rewards[:, [1, 3, 4, 8]] = np.random.default_rng(3).normal(5, 1, size=(20, 4))
    found = split_half_reliability(rewards, 2)
    assert found.num_prompts == 20
    assert np.isfinite(found.spearman)
    rewards[5:, 8] = np.nan
    with pytest.raises(InputError, match="5 prompts have 4 rewards or more, two halves of 2"):
        split_half_reliability(rewards, 2)


def test_the_seed_decides_and_constant_rewards_have_no_correlation() -> None:
    rewards = np.random.default_rng(4).normal(size=(30, 8))
    assert split_half_reliability(rewards, 4, seed=1) == split_half_reliability(rewards, 4, seed=1)
    assert np.isnan(split_half_reliability(np.ones((30, 8)), 4).spearman)
