"""Correlations against scipy's and by hand; the interval by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from pvar.correlation import correlation_table
from pvar.errors import ConfigError, InputError


def test_agrees_with_scipy_on_every_pair():
    rng = np.random.default_rng(0)
    values = {name: np.round(rng.normal(size=60), 1) for name in "abc"}  # rounding makes ties
    values["c"] = values["a"] + values["c"]
    table = correlation_table(values)
    assert table.names == ("a", "b", "c")
    for i, first in enumerate("abc"):
        for j, second in enumerate("abc"):
            x, y = values[first], values[second]
            assert table.pearson[i, j] == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
            assert table.spearman[i, j] == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert (table.num_prompts == 60).all()


def test_ranks_by_hand():
    # Ranks (1, 2, 3, 4) and (1, 3, 2, 4): Σd² = 2, ρ = 1 − 6·2/(4·15) = 0.8.
    table = correlation_table({"pvar": [0.0, 0.1, 0.2, 0.25], "gap": [1.0, 30.0, 20.0, 400.0]})
    assert table.spearman[0, 1] == pytest.approx(0.8)
    # atanh 0.8 = 1.0986, standard error √((1 + 0.32)/1) = 1.1489: tanh(1.0986 ± 1.96 · 1.1489).
    assert table.spearman_lower[0, 1] == pytest.approx(math.tanh(1.09861 - 2.25182), abs=1e-4)
    assert table.spearman_upper[0, 1] == pytest.approx(math.tanh(1.09861 + 2.25182), abs=1e-4)


def test_prompts_without_both_measures_are_left_out():
    table = correlation_table(
        {"x": [1.0, 2.0, 3.0, 4.0, math.nan], "y": [2.0, 4.0, 6.0, math.inf, 0.0]}
    )
    np.testing.assert_array_equal(table.num_prompts, [[4, 3], [3, 4]])
    assert table.pearson[0, 1] == pytest.approx(1)


def test_a_constant_measure_correlates_with_nothing():
    table = correlation_table({"x": [1.0, 2.0, 3.0, 5.0], "constant": [7.0] * 4})
    assert np.isnan(table.pearson[0, 1])
    assert np.isnan(table.spearman[0, 1])
    assert np.isnan(table.spearman_lower[1, 1])


def test_two_prompts_make_no_correlation_and_three_no_interval():
    two = correlation_table({"x": [1.0, 2.0], "y": [2.0, 1.0]})
    three = correlation_table({"x": [1.0, 2.0, 3.0], "y": [2.0, 1.0, 3.0]})
    assert np.isnan(two.spearman[0, 1])
    assert three.spearman[0, 1] == pytest.approx(0.5)
    assert np.isnan(three.spearman_lower[0, 1])


def test_ranks_that_agree_entirely_claim_no_certainty() -> None:
    order = [0.0, 0.1, 0.2, 0.4, 0.7, 0.9]
    table = correlation_table({"x": order, "same": order, "reverse": order[::-1]})
    np.testing.assert_allclose(table.spearman[0], [1, 1, -1])
    assert np.isnan(table.spearman_lower[0]).all()
    assert np.isnan(table.spearman_upper[0]).all()


def test_the_interval_covers_the_true_rank_correlation():
    # For normal variables ρ_s = (6/π) asin(r/2). 500 intervals at 95 %: 0.95 ± 0.03.
    rng = np.random.default_rng(0)
    truth = 6 / math.pi * math.asin(0.6 / 2)
    covered = 0
    for _ in range(500):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=60).T
        table = correlation_table({"x": x, "y": y})
        covered += table.spearman_lower[0, 1] <= truth <= table.spearman_upper[0, 1]
    assert 0.92 < covered / 500 < 0.98


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({"x": [1.0]}, "at least two"),
        ({"x": [1.0, 2.0], "y": [1.0]}, r"'y': \(1,\)"),
        ({"x": [[1.0]], "y": [[1.0]]}, "one value per prompt"),
    ],
)
def test_measures_that_do_not_fit_are_refused(measures, message):
    with pytest.raises(InputError, match=message):
        correlation_table(measures)


def test_a_confidence_outside_0_and_1_is_refused():
    with pytest.raises(ConfigError, match="confidence is 95"):
        correlation_table({"x": [1.0], "y": [1.0]}, confidence=95)
