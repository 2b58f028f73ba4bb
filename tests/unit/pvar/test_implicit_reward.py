"""Implicit rewards by hand, and the implicit PVar that they lead to."""

import math

import numpy as np
import pytest

import pvar
from pvar.errors import ConfigError, InputError
from pvar.implicit_reward import implicit_rewards


def test_the_reward_is_beta_times_the_log_ratio():
    # β = 0.1: 0.1 · (−10 + 30) = 2 and 0.1 · (−50 + 40) = −1.
    rewards = implicit_rewards([[-10.0, -50.0]], [[-30.0, -40.0]], beta=0.1)
    np.testing.assert_allclose(rewards, [[2.0, -1.0]])


def test_the_implicit_variance_of_the_reference_itself_is_zero():
    logps = -np.random.default_rng(0).exponential(100, size=(5, 4))
    assert (pvar.preference_variance(implicit_rewards(logps, logps, beta=0.1)) == 0).all()


def test_a_term_of_the_prompt_alone_does_not_change_the_implicit_variance():
    policy = np.array([[-1.0, -2.0, -4.0]])
    reference = np.array([[-3.0, -3.0, -3.0]])
    with_term = implicit_rewards(policy, reference - 8, beta=0.5)  # log Z = 8, a power of two
    np.testing.assert_array_equal(
        pvar.preference_variance(with_term),
        pvar.preference_variance(implicit_rewards(policy, reference, beta=0.5)),
    )


def test_what_is_not_finite_is_missing():
    rewards = implicit_rewards(
        [-math.inf, -math.inf, math.nan, -1.0], [-math.inf, -1.0, -1.0, -math.inf], beta=0.1
    )
    assert np.isnan(rewards).all()


def test_half_precision_is_raised_before_the_difference():
    # 1000.5 has no float16; 100.5 − 100 has. float32 in, float32 out.
    half = implicit_rewards(
        np.array([-100.5], np.float16), np.array([-100.0], np.float16), beta=0.1
    )
    assert half.dtype == np.float32
    assert half == pytest.approx([-0.05], rel=1e-6)


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_a_beta_that_is_not_positive_is_refused(beta):
    with pytest.raises(ConfigError, match="beta is"):
        implicit_rewards([-1.0], [-1.0], beta=beta)


def test_losses_in_the_place_of_log_probabilities_are_refused():
    with pytest.raises(InputError, match=r"largest of the reference logps is 2\.5"):
        implicit_rewards([-1.0, -1.0], [2.5, math.nan], beta=0.1)


def test_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"policy logps have shape \(1, 2\) and reference"):
        implicit_rewards([[-1.0, -2.0]], [[-1.0]], beta=0.1)
