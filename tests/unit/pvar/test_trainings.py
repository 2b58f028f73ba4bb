"""The difference of two methods: by hand, at its limits, and how often it claims what is not so."""

import math

import numpy as np
import pytest
from scipy import stats

from pvar.errors import InputError
from pvar.evaluation.paired import paired_difference
from pvar.evaluation.trainings import method_difference, method_mean


def test_the_interval_is_the_one_computed_by_hand() -> None:
    """Two trainings and two prompts an arm.

    a: means of trainings 1 and ½, of prompts 1 and ½; b: all 0, but ½ of the second training on the
    second prompt. Differences per prompt 1 and ¼, mean 0.625; V_prompts = 0.28125/2 = 0.140625.
    a's trainings: variance 0.125, /2 = 0.0625. b's: means 0 and ¼, variance 0.03125, /2 = 0.015625.
    Residuals of a: ±¼, MS_e = 4/16 = ¼, /4 = 0.0625; of b: ±⅛, MS_e = 1/16, /4 = 0.015625.
    V = 0.140625 + 0.078125 − 0.078125 = 0.140625.
    Degrees: V² / (0.140625² + 0.0625² + 0.015625²), each with 1.
    """
    a = [[1.0, 1.0], [1.0, 0.0]]
    b = [[0.0, 0.0], [0.0, 0.5]]
    found = method_difference(a, b, seed=0)
    degrees = 0.140625**2 / (0.140625**2 + 0.0625**2 + 0.015625**2)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(0.140625)
    assert found.difference == pytest.approx(0.625)
    assert found.degrees_of_freedom == pytest.approx(degrees)
    assert (found.ci_lower, found.ci_upper) == (
        pytest.approx(max(-1, 0.625 - half)),
        pytest.approx(min(1, 0.625 + half)),
    )
    assert found.over_trainings


def test_where_trainings_alone_differ_it_is_welchs_test() -> None:
    """Every prompt has the value of its training: no prompts scatter, no interaction."""
    a, b = np.array([0.2, 0.5, 0.9]), np.array([0.4, 0.45])
    found = method_difference(
        np.repeat(a[:, None], 50, axis=1), np.repeat(b[:, None], 50, axis=1), seed=0
    )
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.ci_lower == pytest.approx(welch.low)
    assert found.ci_upper == pytest.approx(welch.high)


def test_one_training_an_arm_has_the_interval_over_prompts_and_says_so() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((1, 40)), rng.random((3, 40))
    found = method_difference(a, b, seed=7)
    expected = paired_difference(a[0], b.mean(axis=0), seed=7)
    assert (found.difference, found.ci_lower, found.ci_upper) == expected[:3]
    assert not found.over_trainings
    assert math.isnan(found.degrees_of_freedom)


def test_prompts_that_lack_a_model_are_left_out() -> None:
    a = np.array([[1.0, 1.0, math.nan, 0.0], [1.0, 0.0, 1.0, 0.5]])
    b = np.array([[0.0, 0.5, 0.0, 0.0], [0.5, 0.0, 0.0, 1.0]])
    kept = [0, 1, 3]
    found = method_difference(a, b, seed=0)
    assert found[:5] == method_difference(a[:, kept], b[:, kept], seed=0)[:5]
    assert (found.num_prompts, found.num_wanted) == (3, 4)


def test_equal_arms_that_never_vary_are_not_certain() -> None:
    """All prompts alike: the exact bound over prompts, as in `paired_difference`."""
    found = method_difference(np.ones((2, 5)), np.ones((2, 5)), seed=0)
    assert found.difference == 0
    assert found.ci_lower < -0.4
    assert not found.over_trainings


def test_what_is_no_pair_of_arms_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(3,\); give \(num_trainings, num_prompts\)"):
        method_difference([0.5, 0.5, 0.5], [[0.5]], seed=0)
    with pytest.raises(InputError, match="2 and 1 prompts; join them by prompt id"):
        method_difference([[0.5, 0.5]], [[0.5]], seed=0)
    with pytest.raises(InputError, match=r"1 of 2 preferences are outside \[0, 1\]"):
        method_difference([[0.5, 1.5]], [[0.5, 0.5]], seed=0)


@pytest.mark.parametrize("scatter", [0.0, 0.06])
def test_claims_without_a_true_difference_are_rare(scatter: float) -> None:
    """At most 7 % where 5 % is the level (400 draws: 3 standard deviations are 3.3 points).

    Over prompts alone, a scatter of 6 points between trainings is often taken for a difference.
    """
    rng = np.random.default_rng(11)
    claims = over_prompts = 0
    for _ in range(400):
        prompts = rng.normal(0, 0.2, 200)
        arms = [
            np.clip(
                0.5 + prompts + rng.normal(0, scatter, (3, 1)) + rng.normal(0, 0.2, (3, 200)), 0, 1
            )
            for _ in range(2)
        ]
        found = method_difference(*arms, seed=0)
        claims += found.ci_lower > 0 or found.ci_upper < 0
        if scatter:
            alone = arms[0].mean(axis=0) - arms[1].mean(axis=0)
            over_prompts += abs(alone.mean()) > 1.96 * alone.std(ddof=1) / math.sqrt(200)
    assert claims / 400 <= 0.07 + 0.033
    if scatter:
        assert over_prompts / 400 > 0.4


def test_the_variance_is_that_of_its_parts_in_this_design() -> None:
    """The arms above: V = 0.140625 of prompts 0.125, trainings 0, interactions ¼ and 1/16."""
    found = method_difference([[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.5]], seed=0)
    assert found.spread is not None
    assert found.spread.of_prompts == pytest.approx(0.125)
    assert found.spread.of_trainings == pytest.approx((0, 0))
    assert found.spread.of_interaction == pytest.approx((0.25, 0.0625))
    assert found.spread.variance((2, 2), 2) == pytest.approx(0.140625)
    assert found.spread.variance((4, 1), 10) == pytest.approx(0.125 / 10 + 0.25 / 40 + 0.0625 / 10)


def test_the_mean_of_an_arm_scatters_with_its_trainings() -> None:
    """Trainings of 0.4 and 0.6 on every prompt: t's interval of their mean."""
    arm = np.repeat([[0.4], [0.6]], 30, axis=1)
    found = method_mean(arm, seed=0)
    expected = stats.t.interval(0.95, 1, loc=0.5, scale=stats.sem([0.4, 0.6]))
    assert found.difference == pytest.approx(0.5)
    assert found.ci_lower == pytest.approx(max(-1.0, expected[0]))
    assert found.over_trainings
