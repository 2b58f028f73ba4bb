"""Several reward models: numbers by hand, and the law of total variance that ties them together."""

import math
from itertools import combinations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pvar
from pvar.combine import (
    combine_preference_variance,
    combine_preference_variance_stderr,
    disagreement,
    preference_entropy,
)
from pvar.errors import ConfigError, InputError

three_models = hnp.arrays(
    np.float64,
    (3, 4, 5),
    elements=st.one_of(st.floats(-20, 20), st.just(math.nan)),
)
SCALES = (1.0, 0.5, 4.0)

# One prompt, two responses, p = 3/4 by the first model and 1/4 by the second.
OPPOSED = np.array([[[math.log(3), 0.0]], [[0.0, math.log(3)]]])


def test_opposed_models_each_see_variance_and_their_mean_sees_none():
    scales = (1.0, 1.0)
    assert combine_preference_variance(OPPOSED, scales=scales) == pytest.approx(1 / 16)
    mean_probability = combine_preference_variance(OPPOSED, scales=scales, rule="mean_probability")
    assert mean_probability == pytest.approx(0, abs=1e-30)
    # p is ½ ± ¼ over the models: variance 1/16 in both orders of the pair.
    assert disagreement(OPPOSED, scales=scales) == pytest.approx(1 / 16)


def test_two_models_of_different_certainty_by_hand():
    # p = 3/4 and 9/10: mean 0.825, (0.325)² = 0.105625; half-difference 0.075² = 0.005625;
    # mean of (1/4)² and (2/5)²: (0.0625 + 0.16)/2 = 0.11125, the sum of the two.
    rewards = np.array([[[math.log(3), 0.0]], [[2 * math.log(9), 0.0]]])
    scales = (1.0, 2.0)
    mean_probability = combine_preference_variance(rewards, scales=scales, rule="mean_probability")
    assert mean_probability == pytest.approx(0.105625)
    assert disagreement(rewards, scales=scales) == pytest.approx(0.005625)
    assert combine_preference_variance(rewards, scales=scales) == pytest.approx(0.11125)


def test_the_entropy_is_that_of_the_averaged_preference():
    # Opposed models average to p = ½; p = 3/4 and 9/10 average to 0.825; certain ones agree.
    assert preference_entropy(OPPOSED, scales=(1.0, 1.0)) == pytest.approx(math.log(2))
    rewards = np.array([[[math.log(3), 0.0]], [[2 * math.log(9), 0.0]]])
    by_hand = -0.825 * math.log(0.825) - 0.175 * math.log(0.175)
    assert preference_entropy(rewards, scales=(1.0, 2.0)) == pytest.approx(by_hand)
    assert preference_entropy(1e4 * rewards, scales=(1.0, 2.0)) == pytest.approx(0, abs=1e-15)


@given(three_models)
def test_the_entropy_is_the_mean_over_the_pairs_that_all_models_scored(rewards):
    found = preference_entropy(rewards, scales=SCALES)
    for prompt, entropy in enumerate(found):
        known = np.flatnonzero(np.isfinite(rewards[:, prompt]).all(axis=0))
        entropies = []
        for i, j in combinations(known, 2):
            differences = (rewards[:, prompt, i] - rewards[:, prompt, j]) / np.array(SCALES)
            p = np.mean(1 / (1 + np.exp(-differences)))
            entropies.append(-sum(q * math.log(q) for q in (p, 1 - p) if q > 0))
        expected = np.mean(entropies) if entropies else math.nan
        assert entropy == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(three_models)
def test_mean_pvar_is_variance_of_the_mean_plus_disagreement(rewards):
    mean_pvar = combine_preference_variance(rewards, scales=SCALES)
    mean_probability = combine_preference_variance(rewards, scales=SCALES, rule="mean_probability")
    between = disagreement(rewards, scales=SCALES)
    np.testing.assert_allclose(mean_pvar, mean_probability + between, rtol=1e-12, atol=1e-300)
    present = between[~np.isnan(between)]
    assert ((present >= 0) & (present <= 0.25)).all()


@given(three_models)
def test_only_responses_that_all_models_scored_count(rewards):
    common = np.isfinite(rewards).all(axis=0)
    per_model = [
        pvar.preference_variance(np.where(common, model, np.nan), scale=scale)
        for model, scale in zip(rewards, SCALES, strict=True)
    ]
    np.testing.assert_array_equal(
        combine_preference_variance(rewards, scales=SCALES), np.mean(per_model, axis=0)
    )


@pytest.mark.parametrize("rule", ["mean_pvar", "mean_probability"])
def test_one_model_is_its_own_combination(rule):
    rewards = np.random.default_rng(0).normal(size=(1, 30, 5))
    np.testing.assert_allclose(
        combine_preference_variance(rewards, scales=[2.0], rule=rule),
        pvar.preference_variance(rewards[0], scale=2.0),
        rtol=1e-13,
    )


def test_the_error_of_opposed_models_is_that_of_each_and_of_their_mean_none():
    # By each model h = 1/16 for the two pairs with the first response and 0 for the third pair:
    # s = (2, 1, 1)/16, s̄ = 1/12, Σ(s_i − s̄)² = (4 + 1 + 1)/48² = 1/384, and
    # stderr² = 4/(3 · 2 · 1²) / 384 = 1/576. The mean preference is ½ in every pair, and so is the
    # preference by the mean reward.
    rewards = np.array([[[math.log(3), 0.0, 0.0]], [[-math.log(3), 0.0, 0.0]]])
    scales = (1.0, 1.0)
    assert combine_preference_variance_stderr(rewards, scales=scales) == pytest.approx(1 / 24)
    assert combine_preference_variance_stderr(
        rewards, scales=scales, rule="mean_probability"
    ) == pytest.approx(0, abs=1e-15)
    assert pvar.preference_variance_stderr(rewards.mean(axis=0)) == 0


@pytest.mark.parametrize("rule", ["mean_pvar", "mean_probability"])
@given(rewards=three_models)
def test_the_standard_error_is_the_jackknifes_of_the_combination(rule, rewards):
    def leave_one_out(prompt):
        of_all = prompt[:, np.isfinite(prompt).all(axis=0)]
        num = of_all.shape[1]
        if num < 3:
            return math.nan
        left_out = [
            combine_preference_variance(
                np.delete(of_all, i, axis=1)[:, None], scales=SCALES, rule=rule
            )[0]
            for i in range(num)
        ]
        return math.sqrt((num - 1) / num * np.sum((left_out - np.mean(left_out)) ** 2))

    np.testing.assert_allclose(
        combine_preference_variance_stderr(rewards, scales=SCALES, rule=rule),
        [leave_one_out(rewards[:, prompt]) for prompt in range(rewards.shape[1])],
        rtol=1e-6,
        atol=1e-12,
    )


@pytest.mark.parametrize("rule", ["mean_pvar", "mean_probability"])
def test_the_standard_error_of_one_model_is_its_own(rule):
    rewards = np.random.default_rng(0).normal(size=(1, 30, 5))
    rewards[0, ::3, 4] = np.nan
    np.testing.assert_array_equal(
        combine_preference_variance_stderr(rewards, scales=[2.0], rule=rule),
        pvar.preference_variance_stderr(rewards[0], scale=2.0),
    )


def test_masked_responses_are_left_out():
    rewards = np.random.default_rng(0).normal(size=(2, 3, 4))
    mask = np.array([[True, True, True, False]] * 3)
    for function in (
        combine_preference_variance,
        combine_preference_variance_stderr,
        disagreement,
        preference_entropy,
    ):
        np.testing.assert_array_equal(
            function(rewards, scales=[1, 1], mask=mask),
            function(np.where(mask, rewards, np.nan), scales=[1, 1]),
        )


def test_disagreement_needs_two_models():
    with pytest.raises(ConfigError, match="at least two reward models"):
        disagreement(np.zeros((1, 2, 3)), scales=[1.0])


@pytest.mark.parametrize("scales", [[], [1.0], [1.0, 0.0]])
def test_every_model_needs_its_scale(scales):
    with pytest.raises(ConfigError, match="scale"):
        combine_preference_variance(OPPOSED, scales=scales)


def test_a_matrix_of_one_model_is_refused():
    with pytest.raises(InputError, match="num_models, num_prompts, num_responses"):
        combine_preference_variance(OPPOSED[0], scales=[1.0, 1.0])
