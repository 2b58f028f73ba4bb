"""Predicted PVar against sampling: planted pools, no leak, noise, and independent oracles."""

import re

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from pvar.errors import InputError
from pvar.prediction import (
    Predictions,
    compare_with_sampling,
    is_usable,
    predict_variance,
    variance_by_group,
)
from pvar.reliability import split_half_reliability
from pvar.selection import RewardMatrix
from pvar.variance import preference_variance


def rewards_of(spread: np.ndarray, num_responses: int, seed: int) -> RewardMatrix:
    """Normal rewards of one model."""
    noise = np.random.default_rng(seed).normal(size=(len(spread), num_responses))
    return RewardMatrix((noise * spread[:, None])[None], (1.0,))


def test_a_linear_function_of_the_embedding_is_found_as_far_as_the_noise_allows() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 20))
    truth = 0.1 + 0.02 * embeddings[:, 0] - 0.01 * embeddings[:, 1]
    measured = truth + rng.normal(scale=0.01, size=300)
    found = predict_variance(embeddings, measured)
    # The truth itself explains 5/6 of the variance: 0.0005 of 0.0005 + 0.0001.
    assert r2_score(measured, truth) == pytest.approx(5 / 6, abs=0.03)
    assert r2_score(measured, found.pvar) == pytest.approx(5 / 6, abs=0.06)
    assert spearmanr(found.pvar, truth).statistic > 0.97


def test_a_prompts_own_target_is_not_in_its_prediction() -> None:
    rng = np.random.default_rng(1)
    embeddings, pvar = rng.normal(size=(40, 5)), rng.uniform(0, 0.25, size=40)
    changed = pvar.copy()
    changed[7] = 5.0
    before, after = (predict_variance(embeddings, each, seed=3) for each in (pvar, changed))
    same = before.pvar == after.pvar
    assert same[7]
    assert before.above_mean[7] == after.above_mean[7]
    assert same.sum() == 4  # its fold of ten


def test_a_regression_without_a_feature_does_not_order_the_prompts() -> None:
    pvar = np.random.default_rng(2).uniform(0, 0.25, size=200)
    found = predict_variance(np.ones((200, 3)), pvar)
    # The means of the other folds, low where the own fold is high: −√(10/200) = −0.22.
    assert np.corrcoef(found.pvar, pvar)[0, 1] == pytest.approx(-0.22, abs=0.12)
    assert not found.above_mean.any()


def test_the_interval_of_noise_contains_zero_and_that_of_a_planted_pool_does_not() -> None:
    rng = np.random.default_rng(3)
    embeddings = rng.normal(size=(200, 10))
    rewards = rewards_of(np.exp(embeddings[:, 0]), 8, seed=4)
    pvar = preference_variance(rewards.rewards[0])
    planted = compare_with_sampling(
        rewards, predict_variance(embeddings, pvar), top_share=0.2, num_resamples=200
    )
    assert planted.prediction.spearman_interval.lower > 0.3
    assert planted.prediction.r_squared_interval.lower > 0
    # 16 numbers know the spread less well than the embedding, which has it.
    assert planted.prediction.spearman > planted.sampling[2].spearman
    assert planted.sampling[4].spearman > planted.sampling[2].spearman
    other = predict_variance(rng.normal(size=(200, 10)), pvar)
    noise = compare_with_sampling(rewards, other, top_share=0.2, num_resamples=200)
    for agreement in (noise.prediction, noise.prediction_of_all):
        lower, upper = agreement.spearman_interval
        assert lower < 0 < upper
    assert noise.prediction.r_squared < 0.02
    assert noise.prediction.overlap == pytest.approx(0.2, abs=0.1)
    assert noise.sampling == planted.sampling


def test_sampling_against_the_other_half_is_split_half_reliability() -> None:
    rewards = rewards_of(np.linspace(0.1, 3, 300), 16, seed=5)
    predictions = Predictions(*np.random.default_rng(6).normal(size=(2, 300)))
    found = compare_with_sampling(rewards, predictions, top_share=0.1, num_resamples=1)
    assert list(found.sampling) == [2, 3, 4, 6, 8]
    expected = split_half_reliability(rewards.rewards[0], 8)
    assert found.sampling[8].spearman == pytest.approx(expected.spearman, abs=0.01)
    assert found.sampling[8].overlap == pytest.approx(expected.overlap, abs=0.05)


def test_the_figures_and_their_interval_are_scipys_and_scikit_learns() -> None:
    """Rewards of two values give many ties; the resamples are drawn again here."""
    rng = np.random.default_rng(7)
    rewards = rng.integers(0, 2, size=(50, 8)).astype(float)
    estimate = rng.integers(0, 9, size=50) / 40
    found = compare_with_sampling(
        RewardMatrix(rewards[None], (1.0,)),
        Predictions(estimate, estimate),
        top_share=0.1,
        num_resamples=80,
        seed=9,
    ).prediction_of_all
    pvar = preference_variance(rewards)
    assert found.spearman == pytest.approx(spearmanr(estimate, pvar).statistic)
    assert found.r_squared == pytest.approx(r2_score(pvar, estimate))
    counts = np.random.default_rng(9).multinomial(50, np.full(50, 1 / 50), size=80)
    drawn = [np.repeat(np.arange(50), count) for count in counts]
    correlations = [spearmanr(estimate[rows], pvar[rows]).statistic for rows in drawn]
    explained = [r2_score(pvar[rows], estimate[rows]) for rows in drawn]
    levels = [0.025, 0.975]
    assert found.spearman_interval == pytest.approx(np.quantile(correlations, levels))
    assert found.r_squared_interval == pytest.approx(np.quantile(explained, levels))


def test_missing_rewards_are_never_drawn_and_both_halves_keep_two() -> None:
    """Four rewards a prompt, in any columns: every split has two and two others."""
    rewards = np.full((30, 9), np.nan)
    rewards[:, [1, 3, 4, 8]] = np.random.default_rng(8).normal(size=(30, 4))
    rewards[0] = np.nan
    matrix = RewardMatrix(rewards[None], (1.0,))
    usable = is_usable(matrix)
    assert usable.tolist() == [False] + [True] * 29
    predictions = Predictions(*np.random.default_rng(9).normal(size=(2, 29)))
    found = compare_with_sampling(
        RewardMatrix(rewards[None, usable], (1.0,)), predictions, top_share=0.1, num_resamples=5
    )
    assert found.num_prompts == 29
    assert np.isfinite(found.sampling[2].spearman)
    assert found.sampling[2].spearman == found.sampling[3].spearman  # there are only two others


def test_an_estimate_that_is_constant_has_no_correlation() -> None:
    rewards = RewardMatrix(np.ones((1, 25, 4)), (1.0,))
    embeddings = np.random.default_rng(10).normal(size=(25, 2))
    found = compare_with_sampling(
        rewards, predict_variance(embeddings, np.zeros(25)), top_share=0.1
    )
    for agreement in (found.prediction, found.prediction_of_all, found.sampling[2]):
        assert np.isnan(agreement.spearman)
        assert np.isnan(agreement.r_squared)
        assert np.isnan(agreement.spearman_interval).all()


def test_groups_have_their_own_means_and_comparisons() -> None:
    """A prediction that tells two groups apart, and nothing within them."""
    rng = np.random.default_rng(11)
    spread = np.concatenate([np.full(40, 0.3), np.full(40, 2.0), [1.0] * 2])
    rewards = rewards_of(spread, 8, seed=12)
    predicted = spread + rng.normal(scale=0.01, size=82)
    predictions = Predictions(predicted, predicted)
    together = compare_with_sampling(rewards, predictions, top_share=0.1, num_resamples=50)
    assert together.prediction.spearman > 0.6
    groups = ["plain"] * 40 + ["bright"] * 40 + ["few"] * 2
    found = variance_by_group(rewards, predictions, groups, top_share=0.1, num_resamples=50)
    assert list(found) == ["bright", "few", "plain"]
    assert found["few"].comparison is None
    pvar = preference_variance(rewards.rewards[0])
    for name, rows in (("plain", slice(0, 40)), ("bright", slice(40, 80)), ("few", slice(80, 82))):
        group = found[name]
        assert group.num_prompts == len(pvar[rows])
        assert group.pvar_mean == pytest.approx(pvar[rows].mean())
        assert group.pvar_interval.lower < group.pvar_mean < group.pvar_interval.upper
    for name in ("plain", "bright"):
        comparison = found[name].comparison
        assert comparison is not None
        assert abs(comparison.prediction.spearman) < 0.3
        assert comparison.num_prompts == 40
    # The mean of 40 values has a standard error of √(variance/40).
    lower, upper = found["bright"].pvar_interval
    assert upper - lower == pytest.approx(2 * 1.96 * pvar[40:80].std() / 40**0.5, rel=0.25)


def test_what_is_too_little_or_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match=r"19 of 19 prompts .* needs at least 20"):
        is_usable(RewardMatrix(np.ones((1, 19, 4)), (1.0,)))
    with pytest.raises(InputError, match="0 of 30 prompts have 4 usable responses"):
        is_usable(RewardMatrix(np.ones((1, 30, 3)), (1.0,)))
    with pytest.raises(InputError, match=re.escape("shape (30, 2) and PVar (29,)")):
        predict_variance(np.ones((30, 2)), np.ones(29))
    embeddings = np.ones((30, 2))
    embeddings[3, 1] = np.nan
    with pytest.raises(InputError, match="1 of 60 values of the embeddings are not finite"):
        predict_variance(embeddings, np.ones(30))
