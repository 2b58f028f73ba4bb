"""The measures of rip, selective and lossdiff_irm: numbers by hand, and what ranks promise."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pvar.errors import InputError
from pvar.selection import (
    Budget,
    Candidates,
    RewardMatrix,
    measure_gaps,
    measure_rewards,
    select,
)
from pvar.selection.mid_ranks import mid_ranks
from pvar.selection.rip import RIP

NAN = math.nan
MATRICES = hnp.arrays(np.float64, (7, 3), elements=st.sampled_from([0.0, 1.0, 2.0, 5.0, NAN]))
LENGTHS = hnp.arrays(np.float64, (7, 3), elements=st.sampled_from([1.0, 2.0, 9.0]))
# Two pairs at most, whose sum does not depend on their order: equal scores stay equal.
GAPS = hnp.arrays(np.float64, (2, 7, 2), elements=st.sampled_from([-3.0, 0.0, 0.5, 4.0, NAN])).map(
    lambda gaps: np.where(np.isnan(gaps).any(axis=0), NAN, gaps)
)
ORDERS = st.permutations(range(7))


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def rank_by_counting(values: list[float], value: float) -> float:
    return sum((other < value) + (other == value) / 2 for other in values) / len(values)


def rip_of(rewards, num_tokens) -> np.ndarray:
    matrix = RewardMatrix(np.array(rewards)[None], (1.0,), num_tokens=np.array(num_tokens))
    return measure_rewards(matrix)["rip"]


def test_mid_ranks_are_shares_of_the_known_values():
    # Of three known values two are equal: 0 below and half of 2; 2 below and half of 1.
    ranks = mid_ranks(np.array([3.0, 1.0, NAN, 1.0]))
    np.testing.assert_allclose(ranks, [5 / 6, 1 / 3, NAN, 1 / 3])
    assert len(mid_ranks(np.array([]))) == 0


@given(hnp.arrays(np.float64, 9, elements=st.sampled_from([-1.0, 0.0, 2.0, NAN])))
def test_mid_ranks_change_sides_with_the_sign(values):
    np.testing.assert_allclose(mid_ranks(-values), 1 - mid_ranks(values))


def test_rip_is_the_lowest_of_three_ranks_of_the_rejected_response():
    rewards = [
        [5.0, 4.0, 4.5],  # rejected 4 (rank 7/8), 30 tokens (7/8), gap 1 (7/8): the best by all
        [9.0, 3.0, 6.0],  # rejected 3 (5/8), 20 tokens (5/8), gap 6 (1/8)
        [3.0, NAN, 1.0],  # rejected 1 (1/8), 10 tokens (3/8), gap 2 (5/8)
        [2.0, 2.0, 5.0],  # rejected 2 (3/8), the second one with 5 tokens (1/8), gap 3 (3/8)
        [1.0, NAN, NAN],  # one reward is no pair, and counts in no rank
    ]
    num_tokens = [[1, 30, 1], [1, 20, 1], [1, NAN, 10], [99, 5, 1], [99, 99, 99]]
    np.testing.assert_allclose(rip_of(rewards, num_tokens), [7 / 8, 1 / 8, 1 / 8, 1 / 8, NAN])


@given(MATRICES, LENGTHS)
def test_rip_at_least_t_means_passing_all_three_filters_at_quantile_t(rewards, num_tokens):
    rip = rip_of(rewards, num_tokens)
    pairs = {}
    for prompt, row in enumerate(rewards):
        answers = sorted(column for column in range(3) if not np.isnan(row[column]))
        if len(answers) >= 2:
            worst = min(answers, key=lambda column: (row[column], -column))
            best = max(row[answers])
            pairs[prompt] = (row[worst], num_tokens[prompt, worst], row[worst] - best)
    for quantile in set(rip[~np.isnan(rip)].tolist()):
        survivors = {
            prompt
            for prompt, pair in pairs.items()
            if all(
                rank_by_counting([other[k] for other in pairs.values()], pair[k])
                >= quantile - 1e-12
                for k in range(3)
            )
        }
        assert survivors == set(np.flatnonzero(rip >= quantile - 1e-12).tolist())


def test_rip_is_not_measured_without_lengths():
    matrix = RewardMatrix(np.array([[[1.0, 2.0]]]), (1.0,))
    assert "rip" not in measure_rewards(matrix)
    assert RIP.measure.compute is not None
    with pytest.raises(InputError, match="give num_tokens"):
        RIP.measure.compute(matrix)


def test_selective_takes_the_pairs_with_the_lowest_loss():
    # Losses −log σ: of a, −log 0.9 and −log ¼; of b twice log 2; c has no pair; of d −log 0.2.
    gaps = np.array([[[logit(0.9), logit(0.25)], [0.0, 0.0], [NAN, NAN], [logit(0.2), NAN]]])
    measures = measure_gaps(gaps)
    expected = [(math.log(1 / 0.9) + math.log(4)) / 2, math.log(2), NAN, math.log(5)]
    np.testing.assert_allclose(measures["implicit_loss"], expected)
    pool = Candidates(np.array(list("abcd")), measures)
    selected = select(pool, "selective", Budget(count=9), seed=0)
    assert selected.prompt_ids.tolist() == ["b", "a", "d"]  # 0.69, 0.75, 1.61
    # The mean gap of a, (log 9 − log 3)/2, is above that of b: one difficult pair weighs more.
    by_gap = select(pool, "implicit_gap_large", Budget(count=9), seed=0)
    assert by_gap.prompt_ids.tolist() == ["a", "b", "d"]
    assert "lossdiff_irm" not in measures  # of two policies


@given(hnp.arrays(np.float64, (1, 7, 1), elements=st.floats(-20, 20)))
def test_selective_is_the_largest_gap_if_a_prompt_has_one_pair(gaps):
    measures = measure_gaps(gaps)
    order = np.argsort(measures["implicit_loss"], kind="stable")
    assert (np.diff(gaps[0, order, 0]) <= 1e-9).all()


def test_lossdiff_irm_grows_from_the_median_of_both_scores():
    # p is σ(gap): LossDiff = log(p_val / p), in the order of the ratios.
    policy = [0.2, 0.4, 0.5, 0.6, 0.8]  # ranks of IRM: 0.1, 0.3, 0.5, 0.7, 0.9
    ratios = [1.0, 2.0, 1.8, 1.2, 1.1]  # ranks of LossDiff: 0.1, 0.9, 0.7, 0.5, 0.3
    validation = [p * ratio for p, ratio in zip(policy, ratios, strict=True)]
    gaps = np.array([[[logit(p)] for p in each] + [[NAN]] for each in (policy, validation)])
    measure = measure_gaps(gaps)["lossdiff_irm"]
    np.testing.assert_allclose(measure, [0.4, 0.4, 0.2, 0.2, 0.4, NAN])
    pool = Candidates(np.array(list("edcbax")), {"lossdiff_irm": measure})
    selected = select(pool, "lossdiff_irm", Budget(count=3), seed=0)
    assert selected.prompt_ids.tolist() == ["b", "c", "a"]  # equal widths in the order of the ids
    assert selected.cut_value == pytest.approx(0.4)


SAME_SUMS = np.full((2, 7, 2), 0.5)
SAME_SUMS[0, 3:5, 0] = 0.0
SAME_SUMS[1, 3, 0] = SAME_SUMS[1, 4, 1] = -3.0
"""Prompts 3 and 4 have the same loss difference, from other terms: it differs by rounding."""


@given(GAPS)
@example(SAME_SUMS)
def test_lossdiff_irm_at_most_w_means_that_both_scores_lie_between_two_quantiles(gaps):
    measure = measure_gaps(gaps)["lossdiff_irm"]
    margins, differences = {}, {}
    for prompt in range(7):
        pairs = [pair for pair in gaps[:, prompt].T if not np.isnan(pair).any()]
        if pairs:
            # ℓ = log(1 + e^−gap); rounded, since equal scores must stay equal by another formula.
            losses = [math.log1p(math.exp(-a)) - math.log1p(math.exp(-b)) for a, b in pairs]
            differences[prompt] = round(sum(losses) / len(pairs), 9)
            margins[prompt] = round(sum(a for a, _ in pairs) / len(pairs), 9)
    assert set(np.flatnonzero(~np.isnan(measure)).tolist()) == set(margins)
    for prompt in margins:
        ranks = [
            rank_by_counting(list(scores.values()), scores[prompt])
            for scores in (margins, differences)
        ]
        for width in (0.0, 0.1, 0.25, 0.4):
            lies_between = all(0.5 - width - 1e-9 <= rank <= 0.5 + width + 1e-9 for rank in ranks)
            assert lies_between == (measure[prompt] <= width + 1e-9)


@given(MATRICES, LENGTHS, GAPS, ORDERS)
def test_measures_of_ranks_do_not_depend_on_the_order_of_the_prompts(
    rewards, num_tokens, gaps, order
):
    np.testing.assert_array_equal(
        rip_of(rewards[order], num_tokens[order]), rip_of(rewards, num_tokens)[order]
    )
    straight, shuffled = measure_gaps(gaps), measure_gaps(gaps[:, order])
    assert set(straight) == {"implicit_gap", "implicit_loss", "lossdiff_irm"}
    for name, values in straight.items():
        np.testing.assert_array_equal(shuffled[name], values[order])
