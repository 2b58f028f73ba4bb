"""Signal and noise of groups whose gradients are given."""

import math

import numpy as np
import pytest

from pvar.signal_to_noise import SignalToNoise, signal_to_noise


def of(gradients: list[list[float]]) -> SignalToNoise:
    array = np.array(gradients)
    total = array.sum(axis=0)
    return signal_to_noise((array**2).sum(axis=1), float(total @ total))


def test_two_gradients_by_hand() -> None:
    # Mean (3, 0); both deviations have length 1, so noise² = (1 + 1)/(2 · 1) = 1.
    found = of([[3, 1], [3, -1]])
    assert found.signal == pytest.approx(3)
    assert found.noise == pytest.approx(1)
    assert found.ratio == pytest.approx(3)


def test_three_gradients_by_hand() -> None:
    # Mean (2, 0); squared deviations 4, 4, 0: noise² = 8/(3 · 2).
    found = of([[2, 2], [2, -2], [2, 0]])
    assert found.signal == pytest.approx(2)
    assert found.noise == pytest.approx(math.sqrt(4 / 3))


def test_gradients_without_a_common_direction_have_a_ratio_of_about_one() -> None:
    # E‖v̄‖² = noise² where E v = 0; with 1,000 weights it hardly varies.
    gradients = np.random.default_rng(0).normal(size=(10, 1000))
    assert of(gradients.tolist()).ratio == pytest.approx(1, abs=0.1)


def test_noise_is_the_standard_error_of_the_mean() -> None:
    # Over many groups the mean of noise² is that of the mean's squared distance from the truth.
    rng = np.random.default_rng(1)
    truth = np.array([1.0, -2.0, 0.5])
    groups = truth + rng.normal(size=(4000, 5, 3)) * [1.0, 0.5, 2.0]
    noises = np.mean([of(group.tolist()).noise ** 2 for group in groups])
    distances = np.mean(((groups.mean(axis=1) - truth) ** 2).sum(axis=1))
    assert noises == pytest.approx(distances, rel=0.05)
    assert noises == pytest.approx((1 + 0.25 + 4) / 5, rel=0.05)


def test_equal_gradients_have_no_noise_and_too_few_an_unknown_one() -> None:
    assert of([[3, 4], [3, 4]]).ratio == math.inf
    assert math.isnan(of([[0, 0], [0, 0]]).ratio)
    one = of([[3, 4]])
    assert one.signal == pytest.approx(5)
    assert math.isnan(one.noise)
    assert math.isnan(one.ratio)
    none = signal_to_noise([], 0.0)
    assert none.num_gradients == 0
    assert math.isnan(none.signal)
    assert math.isnan(none.ratio)
