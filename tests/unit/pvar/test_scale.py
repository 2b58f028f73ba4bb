"""Reward scales: spread by hand, calibration against a simulated truth and a closed form."""

import math

import numpy as np
import pytest

from pvar.errors import InputError
from pvar.scale import calibrate_scale, scale_from_spread


def test_the_spread_is_pooled_within_prompts():
    # Deviations (−1, 1) and (−2, 0, 2): squares 2 + 8 = 10, degrees 1 + 2: √(10/3). The third
    # prompt has one reward and says nothing; prompt means 1 and 102 do not matter.
    rewards = [[0.0, 2.0, math.nan], [100.0, 102.0, 104.0], [7.0, math.nan, math.inf]]
    assert scale_from_spread(rewards) == pytest.approx(math.sqrt(10 / 3), rel=1e-14)


def test_masked_rewards_do_not_widen_the_spread():
    mask = np.array([[True, True, False]])
    assert scale_from_spread([[0.0, 2.0, 1000.0]], mask) == pytest.approx(math.sqrt(2))


def test_float32_rewards_far_from_zero_keep_their_spread():
    rewards = np.array([[100_000.0, 100_000.5]] * 1000, np.float32)
    assert scale_from_spread(rewards) == pytest.approx(0.5 / math.sqrt(2), rel=1e-12)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([[1.0], [2.0]], "no prompt has two"),
        ([[1.0, 1.0], [2.0, 2.0]], "all rewards within every prompt"),
    ],
)
def test_without_spread_there_is_no_scale(rewards, message):
    with pytest.raises(InputError, match=message):
        scale_from_spread(rewards)


def test_equal_differences_calibrate_in_closed_form():
    # 3 of 4 pairs with Δ = 2 are won: σ(2/τ) = 3/4, so τ = 2/ln 3. The log-likelihood is
    # 3 ln ¾ + ln ¼; the information on a = 1/τ is 4 · 2² · 3/16 = 3, so stderr = τ²/√3.
    fit = calibrate_scale([2.0, 5.0, 2.0, 0.0], [0.0, 3.0, 0.0, 2.0])
    scale = 2 / math.log(3)
    assert fit.scale == pytest.approx(scale, rel=1e-10)
    assert fit.stderr == pytest.approx(scale**2 / math.sqrt(3), rel=1e-9)
    assert fit.log_likelihood == pytest.approx(3 * math.log(0.75) + math.log(0.25), rel=1e-12)
    assert fit.num_pairs == 4


def labelled_pairs(rng, num_pairs, scale):
    rewards = scale * 2 * rng.normal(size=(num_pairs, 2))
    wins = rng.random(num_pairs) < 1 / (1 + np.exp(-(rewards[:, 0] - rewards[:, 1]) / scale))
    return np.where(wins, *rewards.T), np.where(wins, *rewards.T[::-1])


@pytest.mark.parametrize("scale", [1e-3, 0.7, 5000.0])
def test_the_true_scale_is_recovered_within_its_error(scale):
    fits = [
        calibrate_scale(*labelled_pairs(np.random.default_rng(s), 500, scale)) for s in range(200)
    ]
    scores = np.array([(fit.scale - scale) / fit.stderr for fit in fits])
    # 200 standardised errors: mean 0 ± 0.07 (bias of order 1/√500 allowed), deviation 1 ± 0.05.
    assert abs(scores.mean()) < 0.25
    assert 0.85 < scores.std() < 1.15


def test_the_scale_has_the_unit_of_the_rewards():
    chosen, rejected = labelled_pairs(np.random.default_rng(0), 100, 1.0)
    one, thousand = (
        calibrate_scale(chosen, rejected),
        calibrate_scale(1000 * chosen, 1000 * rejected),
    )
    assert thousand.scale == pytest.approx(1000 * one.scale, rel=1e-10)
    assert thousand.log_likelihood == pytest.approx(one.log_likelihood, rel=1e-10)


def test_pairs_without_both_rewards_are_left_out():
    fit = calibrate_scale([2.0, 2.0, 2.0, 0.0, math.nan], [0.0, 0.0, 0.0, 2.0, 1.0])
    assert fit.num_pairs == 4
    assert fit.scale == pytest.approx(2 / math.log(3))


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ([1.0, 2.0], [0.0, 2.0], "all 2 pairs are ordered as labelled"),
        ([0.0, 1.0], [3.0, 0.0], "contradicts the labels"),
        ([1.0, -1.0], [0.0, 0.0], "contradicts the labels"),
        ([1.0, 1.0], [1.0, 1.0], "has a difference in reward"),
        ([math.nan], [1.0], "0 pairs"),
        ([1.0, 2.0], [1.0], "2 chosen rewards but 1 rejected"),
        ([1e308, 0.0], [-1e308, 1.0], "a reward is 1e\\+308 in size"),
        ([1.0, 0.0], [0.0, 1e-320], "the fitted scale is next to 0: of 2 pairs"),
        ([1.0, 0.0], [0.0, 1e-310], "the fitted scale is next to 0: of 2 pairs"),
    ],
)
def test_a_scale_that_the_pairs_do_not_determine_is_refused(chosen, rejected, message):
    with pytest.raises(InputError, match=message):
        calibrate_scale(chosen, rejected)


def test_a_spread_of_rewards_whose_squares_no_float_holds_is_refused():
    with pytest.raises(InputError, match=r"a reward is 1e\+200 in size"):
        scale_from_spread([[1e200, -1e200]])
