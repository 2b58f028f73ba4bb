"""Drift of a judge: what the two tests find, how often they are wrong, and what they cannot see."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from pvar.evaluation.judge_drift import (
    MIN_ANCHORS,
    AnchorPreferences,
    JudgeDrift,
    judge_drift,
)

NUM = 32


def compared(anchors: list[AnchorPreferences]) -> JudgeDrift:
    drift = judge_drift(anchors)
    assert drift is not None
    return drift


def changed(num: int, *, of: int = NUM) -> JudgeDrift:
    """A judge that agreed with itself on all anchors, and now decides some otherwise.

    Wins become losses and losses wins in turn, so that no direction shows.
    """
    sides = [float(number % 2) for number in range(of)]
    return compared(
        [
            AnchorPreferences(side, side, 1 - side if number < num else side)
            for number, side in enumerate(sides)
        ]
    )


def test_a_judge_that_answers_the_same_has_not_drifted() -> None:
    drift = changed(0)
    assert (drift.agreement, drift.p_value, drift.is_drifted) == (1.0, 1.0, False)
    # Clopper and Pearson with 32 of 32: the lower end is (α/2)^(1/32) = 0.025^(1/32) = 0.891.
    assert (drift.agreement_lower, drift.agreement_upper) == (pytest.approx(0.8911, abs=1e-4), 1.0)


def test_seven_changes_of_32_are_found_and_six_are_not() -> None:
    # Of k anchors on which only one of both askings agrees, all speak against now: p = 2^-k.
    assert changed(7).agreement_p_value == pytest.approx(2**-7)
    assert changed(6).agreement_p_value == pytest.approx(2**-6)
    assert [changed(num).is_drifted for num in range(NUM + 1)] == [num >= 7 for num in range(33)]


@pytest.mark.parametrize(
    ("share", "power"), [(0.1, 0.04), (0.2, 0.46), (0.3, 0.89), (0.4, 0.99), (0.5, 1.0)]
)
def test_the_power_is_the_documented_one(share: float, power: float) -> None:
    found = sum(binom.pmf(num, NUM, share) for num in range(NUM + 1) if changed(num).is_drifted)
    assert found == pytest.approx(power, abs=0.005)


def test_a_direction_is_found_in_a_judge_that_was_never_sure() -> None:
    """On 20 of 32 anchors it contradicted itself at once; now all changes favour the model.

    Agreement is the same then and now (12 of 32), but all 20 changes have one direction: McNemar's
    p is 2 · 2^-20.
    """
    anchors = [AnchorPreferences(0.0, 1.0, 1.0)] * 20 + [AnchorPreferences(1.0, 1.0, 1.0)] * 12
    drift = compared(anchors)
    assert drift.first_agreement == drift.agreement == 12 / 32
    assert drift.agreement_p_value == 1.0
    assert drift.direction_p_value == pytest.approx(2**-19)
    assert drift.is_drifted


def test_a_tie_is_a_side_and_rounding_is_none() -> None:
    anchors = [AnchorPreferences(0.5, 0.5, 1 - (0.1 + 0.4))] * 8
    assert compared(anchors).agreement == 1.0
    assert compared([AnchorPreferences(1.0, 1.0, 0.5)] * 8).agreement == 0.0


def test_changes_that_keep_their_side_are_measured_and_not_called_drift() -> None:
    drift = compared([AnchorPreferences(0.9, 0.9, 0.6)] * NUM)
    assert drift.mean_absolute_difference == pytest.approx(0.3)
    assert not drift.is_drifted


@pytest.mark.parametrize(
    ("moved_up", "moved_down", "first_differs"), [(3, 9, 4), (0, 1, 0), (5, 5, 9)]
)
def test_p_values_and_interval_are_scipys(
    moved_up: int, moved_down: int, first_differs: int
) -> None:
    """The anchors that differed at first are none of those that differ now."""
    same = NUM - moved_up - moved_down
    anchors = (
        [AnchorPreferences(0.0, 0.0, 1.0)] * moved_up
        + [AnchorPreferences(1.0, 1.0, 0.0)] * moved_down
        + [AnchorPreferences(1.0, 0.0, 1.0)] * first_differs
        + [AnchorPreferences(1.0, 1.0, 1.0)] * (same - first_differs)
    )
    drift, lost = compared(anchors), moved_up + moved_down
    assert drift.direction_p_value == pytest.approx(binomtest(moved_up, lost).pvalue)
    one_sided = binomtest(lost, lost + first_differs, alternative="greater").pvalue
    assert drift.agreement_p_value == pytest.approx(one_sided)
    bounds = binomtest(same, NUM).proportion_ci(0.95)
    assert (drift.agreement_lower, drift.agreement_upper) == pytest.approx(
        (bounds.low, bounds.high)
    )


def test_too_few_anchors_are_no_comparison() -> None:
    assert judge_drift([AnchorPreferences(0.0, 0.0, 1.0)] * (MIN_ANCHORS - 1)) is None
    assert compared([AnchorPreferences(0.0, 0.0, 1.0)] * MIN_ANCHORS).is_drifted


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.4, 0.5])
def test_a_judge_that_has_not_changed_is_rarely_called_drifted(noise: float) -> None:
    """However noisy it is: each verdict is turned with this probability, independently.

    1,000 checks. Both tests have level 1 %, so at most 2 %, plus 3 standard deviations (0.44 %).
    """
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(1000):
        leaning = rng.random(NUM) < 0.5
        drawn = np.where(rng.random((3, NUM)) < noise, ~leaning, leaning).astype(float)
        alarms += compared([AnchorPreferences(*map(float, row)) for row in drawn.T]).is_drifted
    assert alarms / 1000 <= 0.02 + 3 * 0.0044
