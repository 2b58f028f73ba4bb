"""Alpha spending: levels that sum to the budget, and years in which no model got better."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pvar.errors import InputError
from pvar.evaluation.alpha_spending import level_of_look, mean_lower_bound
from tests.benchmarks.exam_wear import simulate


def test_the_levels_of_all_looks_sum_to_the_budget() -> None:
    levels = [level_of_look(look, 0.05) for look in range(1, 10_001)]
    assert levels == sorted(levels, reverse=True)
    # The rest of the sum of 1 / i² from n + 1 on is between 1 / (n + 1) and 1 / n.
    rest = 0.05 * 6 / math.pi**2
    assert rest / 10_001 < 0.05 - sum(levels) < rest / 10_000
    assert level_of_look(3, 0.05) == pytest.approx(0.0034, abs=5e-5)
    with pytest.raises(InputError, match="numbered from 1"):
        level_of_look(0, 0.05)


def test_the_bound_is_students_by_hand() -> None:
    # Mean 5/8; deviations ±3/8, −1/8, −1/8 … of 1, 1, ½, 0: mean ⅝, variance (9+9+1+25)/64/3.
    values = [1.0, 1.0, 0.5, 0.0, math.nan]
    error = math.sqrt((9 + 9 + 1 + 25) / 64 / 3 / 4)
    # t of 3 degrees of freedom at 5 % is 2.3534 (any table).
    assert mean_lower_bound(values, 0.05) == pytest.approx(max(0, 5 / 8 - 2.3534 * error), abs=1e-4)
    oracle = stats.ttest_1samp(np.tile(values[:4], 50), 0.5, alternative="greater")
    bound = mean_lower_bound(np.tile(values[:4], 50), float(oracle.pvalue))
    assert bound == pytest.approx(0.5)  # the level at which one half is just not excluded


def test_all_wins_have_the_exact_bound_and_nothing_has_none() -> None:
    # P(30 wins of 30 | p) = 0.01 at p = 0.01^(1/30): Clopper and Pearson, one-sided.
    assert mean_lower_bound(np.ones(30), 0.01) == pytest.approx(0.01 ** (1 / 30))
    assert mean_lower_bound(np.full(30, 0.5), 0.01) < 0.5  # ties do not promote
    assert math.isnan(mean_lower_bound([math.nan], 0.01))


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60),
    st.floats(1e-6, 0.5),
    st.floats(1e-6, 0.5),
)
def test_a_stricter_level_never_raises_the_bound(
    values: list[float], level: float, other: float
) -> None:
    strict, loose = sorted((level, other))
    lower = mean_lower_bound(values, strict)
    assert 0 <= lower <= mean_lower_bound(values, loose) <= float(np.mean(values)) + 1e-12


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_a_budget_bounds_the_years_with_a_false_promotion(alike: float) -> None:
    """400 years at 5 %: with a true share of 5 %, more than 8 % have a chance below 1 %."""
    given_years = {"num_years": 400, "num_prompts": 60, "alike": alike}
    spent = simulate(np.random.default_rng(3), **given_years, budget=0.05)  # type: ignore[arg-type]
    assert stats.binom.sf(0.08 * 400, 400, 0.05) < 0.01
    assert spent.any_promotion <= 0.08
    without = simulate(np.random.default_rng(3), **given_years, budget=None)  # type: ignore[arg-type]
    assert without.any_promotion > 0.3
