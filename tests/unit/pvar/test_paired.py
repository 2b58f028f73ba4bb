"""Paired comparisons: point estimates by hand, intervals against exact results and simulation."""

import numpy as np
import pytest
from scipy import stats

from pvar.errors import InputError
from pvar.evaluation.paired import (
    mean_interval,
    paired_difference,
    paired_score_difference,
    paired_win_rate,
)


def test_win_rate_counts_a_tie_as_half_and_leaves_out_what_was_not_judged() -> None:
    result = paired_win_rate([1.0, 0.5, 0.0, 1.0, np.nan], seed=0)

    assert result.win_rate == 2.5 / 4
    assert (result.num_judged, result.num_wanted, result.coverage) == (4, 5, 0.8)


def test_judgments_are_averaged_within_their_prompt_first() -> None:
    # Three judgments of the first prompt must not outvote the one of the second: (1 + 0) / 2.
    result = paired_win_rate([[1, 1, 1], [0, np.nan, np.nan], [np.nan] * 3], seed=0)

    assert result.win_rate == 0.5
    assert (result.num_judged, result.num_wanted) == (2, 3)


def test_repeating_every_judgment_does_not_narrow_the_interval() -> None:
    """Three equal rows per prompt carry no more information than one."""
    preferences = np.random.default_rng(1).beta(0.5, 0.5, size=200)

    once = paired_win_rate(preferences, seed=3)
    thrice = paired_win_rate(np.column_stack([preferences] * 3), seed=3)
    rows = paired_win_rate(np.repeat(preferences, 3), seed=3)  # the defect: rows as prompts

    assert thrice.ci_upper - thrice.ci_lower == pytest.approx(once.ci_upper - once.ci_lower)
    # √3 = 1.73 times too narrow
    assert (rows.ci_upper - rows.ci_lower) * 1.6 < once.ci_upper - once.ci_lower


def test_interval_agrees_with_scipys_bca_bootstrap() -> None:
    values = np.random.default_rng(2).beta(0.3, 0.8, size=150)

    ours = mean_interval(values, confidence=0.95, num_resamples=20_000, seed=0)
    scipys = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, batch=1000, rng=np.random.default_rng(1)
    ).confidence_interval

    # A quantile's Monte-Carlo error here is about 0.0005.
    assert ours == pytest.approx((scipys.low, scipys.high), abs=0.002)


@pytest.mark.parametrize("num_prompts", [1, 10, 100])
def test_all_wins_have_the_exact_binomial_interval(num_prompts: int) -> None:
    result = paired_win_rate(np.ones(num_prompts), seed=0)
    exact = stats.binomtest(num_prompts, num_prompts).proportion_ci(method="exact")

    assert (result.ci_lower, result.ci_upper) == pytest.approx((exact.low, exact.high))


def test_all_ties_leave_room_for_prompts_that_are_not_ties() -> None:
    # n = 10: ε = 1 − 0.025^(1/10) = 0.30850, so ½ ∓ ε/2.
    result = paired_win_rate([0.5] * 10, seed=0)

    assert (result.ci_lower, result.ci_upper) == pytest.approx((0.34575, 0.65425), abs=1e-5)


@pytest.mark.parametrize("preferences", [[], [np.nan, np.nan]])
def test_nothing_judged_says_nothing(preferences: list[float]) -> None:
    result = paired_win_rate(preferences, seed=0)

    assert np.isnan(result.win_rate)
    assert (result.ci_lower, result.ci_upper, result.coverage) == (0.0, 1.0, 0.0)


def test_interval_depends_on_the_seed_alone() -> None:
    preferences = np.random.default_rng(4).random(60)

    assert paired_win_rate(preferences, seed=7) == paired_win_rate(preferences, seed=7)
    assert paired_win_rate(preferences, seed=7) != paired_win_rate(preferences, seed=8)


def test_interval_does_not_depend_on_how_many_resamples_fit_into_memory() -> None:
    # 1e6 values: 4 draws a block; the standard error of a uniform mean is 1/√(12e6) = 0.000289.
    values = np.random.default_rng(5).random(1_000_000)

    lower, upper = mean_interval(values, confidence=0.95, num_resamples=30, seed=0)

    assert values.mean() - 0.0012 < lower < values.mean() < upper < values.mean() + 0.0012


@pytest.mark.parametrize("num_prompts", [30, 200])
def test_interval_covers_the_truth_as_often_as_it_says(num_prompts: int) -> None:
    """Two correlated judgments a prompt: a prompt's own level plus the noise of each judgment."""
    rng = np.random.default_rng(6)
    num_trials = 1000

    def covers() -> bool:
        level = rng.beta(0.6, 1.2, size=(num_prompts, 1))  # mean 1/3, skewed
        result = paired_win_rate(
            (rng.random((num_prompts, 2)) < level).astype(float), num_resamples=1000, seed=0
        )
        return result.ci_lower <= 1 / 3 <= result.ci_upper

    share = np.mean([covers() for _ in range(num_trials)])

    # Binomial standard error of the share: √(0.95·0.05/1000) = 0.007.
    assert 0.925 < share < 0.975


def test_difference_covers_the_truth_and_gains_from_pairing() -> None:
    rng = np.random.default_rng(8)
    covered, paired_width, unpaired_width = [], [], []
    for _ in range(400):
        difficulty = rng.beta(2, 2, size=100)
        a = np.clip(difficulty + rng.normal(0, 0.05, 100), 0, 1)
        b = 0.9 * difficulty
        # E[a − b] ≈ 0.1 · E[difficulty] = 0.05: clipping moves it by less than 0.001.
        result = paired_difference(a, b, num_resamples=500, seed=0)
        covered.append(result.ci_lower <= 0.05 <= result.ci_upper)
        paired_width.append(result.ci_upper - result.ci_lower)
        single = paired_win_rate(a, num_resamples=500, seed=0)
        unpaired_width.append(single.ci_upper - single.ci_lower)

    assert 0.91 < np.mean(covered) < 0.98
    assert np.mean(paired_width) < 0.5 * np.mean(unpaired_width)


def test_difference_uses_only_prompts_that_both_have() -> None:
    # (0.9 − 0.4) and (0.2 − 0.6): mean 0.05; the other two lack one side.
    result = paired_difference([0.9, 0.2, np.nan, 1], [0.4, 0.6, 0.5, np.nan], seed=0)

    assert result.difference == pytest.approx(0.05)
    assert (result.num_judged, result.num_wanted, result.coverage) == (2, 4, 0.5)


def test_equal_models_differ_by_zero_with_an_honest_interval() -> None:
    preferences = np.random.default_rng(9).random(20)
    result = paired_difference(preferences, preferences, seed=0)

    # ε = 1 − 0.025^(1/20) = 0.16843 of the prompts could differ by up to ±1.
    assert result.difference == 0
    assert (result.ci_lower, result.ci_upper) == pytest.approx((-0.16843, 0.16843), abs=1e-5)


def test_values_outside_the_unit_interval_are_refused_with_the_likely_reason() -> None:
    with pytest.raises(InputError, match=r"2 of 3 preferences are outside \[0, 1\].*AlpacaEval"):
        paired_win_rate([1.2, 2.0, 1.0], seed=0)


def test_shapes_that_cannot_be_prompts_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(1, 1, 1\)"):
        paired_win_rate([[[0.5]]], seed=0)


def test_different_numbers_of_prompts_are_refused() -> None:
    with pytest.raises(InputError, match=r"2 and 1.*prompt id"):
        paired_difference([0.5, 0.5], [0.5], seed=0)


def test_with_equal_weights_the_difference_of_scores_is_the_paired_one() -> None:
    rng = np.random.default_rng(10)
    a, b = rng.random(40), rng.random(40)
    b[3] = np.nan
    equal = np.full(40, 2.0)

    found = paired_score_difference((a, equal), (b, 3 * equal), seed=5)

    assert found == paired_difference(a, b, seed=5)


def test_a_weighted_difference_is_that_of_two_weighted_means() -> None:
    # Both have the first three prompts. a: (6·1 + 2·0 + 2·½)/10 = 0.7; b: (2·1 + 6·0 + 4·1)/12 = ½.
    a = np.array([1.0, 0.0, 0.5, 1.0]), np.array([6.0, 2.0, 2.0, 6.0])
    b = np.array([1.0, 0.0, 1.0, np.nan]), np.array([2.0, 6.0, 4.0, 0.0])

    found = paired_score_difference(a, b, seed=0)

    assert found.difference == pytest.approx(0.2)
    assert found.ci_lower <= 0.2 <= found.ci_upper
    assert (found.num_judged, found.num_wanted, found.coverage) == (3, 4, 0.75)


def test_the_interval_of_a_weighted_difference_agrees_with_scipys_bca_bootstrap() -> None:
    rng = np.random.default_rng(11)
    columns = [
        *(rng.choice([0.0, 0.5, 1.0], 300), rng.integers(2, 7, 300).astype(float)),
        *(rng.choice([0.0, 0.5, 1.0], 300), rng.integers(2, 7, 300).astype(float)),
    ]

    def statistic(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        a, w, b, v = drawn
        difference: np.ndarray = (a * w).sum(axis) / w.sum(axis) - (b * v).sum(axis) / v.sum(axis)
        return difference

    ours = paired_score_difference(
        (columns[0], columns[1]), (columns[2], columns[3]), num_resamples=20_000, seed=0
    )
    scipys = stats.bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval

    assert ours.difference == pytest.approx(statistic(*columns))
    # A quantile's Monte-Carlo error here is about 0.001.
    assert (ours.ci_lower, ours.ci_upper) == pytest.approx((scipys.low, scipys.high), abs=0.004)


def test_equal_values_with_other_weights_differ_by_more_than_the_values() -> None:
    # Both win and lose the same prompts; a's wins and b's losses are big ones: ¾ − ¼.
    values = np.array([1.0, 0.0] * 25)

    found = paired_score_difference(
        (values, np.array([6.0, 2.0] * 25)), (values, np.array([2.0, 6.0] * 25)), seed=0
    )

    assert found.difference == pytest.approx(0.5)
    assert 0.3 < found.ci_lower <= 0.5 <= found.ci_upper + 1e-12


@pytest.mark.parametrize("num_prompts", [1, 2, 20])
def test_a_weighted_difference_that_no_resample_changes_has_an_honest_interval(
    num_prompts: int,
) -> None:
    values, ones = np.linspace(0.1, 0.9, num_prompts), np.arange(1.0, num_prompts + 1)
    same = paired_score_difference((values, ones), (values, ones), seed=0)
    # As for equal weights: ε = 1 − 0.025^(1/n) of the prompts could differ by up to ±1.
    reach = 1 - 0.025 ** (1 / num_prompts)

    assert same.difference == 0
    assert (same.ci_lower, same.ci_upper) == pytest.approx((-reach, reach))


def test_two_prompts_that_differ_have_an_interval_without_missing_ends() -> None:
    a = np.array([1.0, 0.0]), np.array([3.0, 1.0])
    b = np.array([1.0, 0.1]), np.array([1.0, 3.0])

    found = paired_score_difference(a, b, seed=0)

    # ¾ − (1 + 0.3)/4 is more than either prompt's own difference, 0 and −0.1.
    assert found.difference == pytest.approx(0.425)
    assert -1 <= found.ci_lower <= found.ci_upper <= 1


def test_a_weighted_difference_of_nothing_is_unknown() -> None:
    nothing = np.array([np.nan, np.nan]), np.array([0.0, 0.0])
    found = paired_score_difference(nothing, nothing, seed=0)

    assert np.isnan(found.difference)
    assert (found.ci_lower, found.ci_upper, found.num_judged) == (-1.0, 1.0, 0)
