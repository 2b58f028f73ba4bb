"""PVar against its definition, its invariances, and the variants that are wrong.

The oracle is the two-loop definition written with math.exp; numbers in comments are by hand.
"""

import math
import subprocess
import sys

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import pvar
from pvar.errors import ConfigError, InputError
from pvar.variance import (
    CutTies,
    count_saturated,
    saturation_share,
    ties_at_cut,
    variance_by_prompt,
)

finite = st.floats(-1e4, 1e4, allow_nan=False)
matrices = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=7), elements=finite
)
SMALLEST_NORMAL = np.finfo(np.float64).tiny
"""Numbers below have fewer digits."""
sometimes_missing = hnp.arrays(
    np.float64, (4, 6), elements=st.one_of(finite, st.sampled_from([math.nan, math.inf, -math.inf]))
)


def preference(difference):
    if difference >= 0:
        return 1 / (1 + math.exp(-difference))
    return 1 - preference(-difference)


def by_two_loops(rewards, scale=1.0):
    """Definition: mean of (p − ½)² over ordered pairs i ≠ j of the finite rewards of one prompt."""
    valid = [reward for reward in rewards if math.isfinite(reward)]
    squares = [
        (preference((first - second) / scale) - 0.5) ** 2
        for i, first in enumerate(valid)
        for j, second in enumerate(valid)
        if i != j
    ]
    return sum(squares) / len(squares) if squares else math.nan


def test_two_responses_have_the_variance_of_a_coin_with_their_preference():
    # r = (ln 3, 0): p = 3/4 one way and 1/4 the other, so (p − ½)² = 1/16 both times.
    assert pvar.preference_variance([[math.log(3), 0.0]]) == pytest.approx([1 / 16], rel=1e-14)


def test_three_responses_by_hand():
    # r = (ln 3, 0, 0): of six ordered pairs four have (p − ½)² = 1/16 and two have 0: 4/96 = 1/24.
    assert pvar.preference_variance([[math.log(3), 0.0, 0.0]]) == pytest.approx([1 / 24])


@given(matrices, st.floats(0.01, 100))
def test_equals_the_two_loop_definition(rewards, scale):
    expected = [by_two_loops(row, scale) for row in rewards]
    actual = pvar.preference_variance(rewards, scale=scale)
    # The oracle's σ − ½ cancels near 0, so its own error is absolute.
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-15)


@given(sometimes_missing)
def test_non_finite_rewards_are_left_out(rewards):
    expected = [by_two_loops(row) for row in rewards]
    np.testing.assert_allclose(
        pvar.preference_variance(rewards), expected, rtol=1e-9, atol=1e-15, equal_nan=True
    )


@given(matrices, st.data())
def test_masked_rewards_are_left_out(rewards, data):
    mask = data.draw(hnp.arrays(np.bool_, rewards.shape))
    np.testing.assert_array_equal(
        pvar.preference_variance(rewards, mask=mask),
        pvar.preference_variance(np.where(mask, rewards, np.nan)),
    )


@given(matrices)
def test_lies_between_zero_and_a_quarter(rewards):
    values = pvar.preference_variance(rewards)
    # Rounding of a mean of n(n − 1)/2 values of at most ¼.
    assert ((values >= 0) & (values <= 0.25 * (1 + 1e-14))).all()


@given(matrices, st.integers(-1000, 1000))
def test_shifting_a_prompts_rewards_changes_nothing(rewards, shift):
    exact = np.round(rewards * 1024) / 1024  # so that the sums are exact
    np.testing.assert_array_equal(
        pvar.preference_variance(exact + shift), pvar.preference_variance(exact)
    )


@given(matrices, st.data())
def test_the_order_of_responses_does_not_matter(rewards, data):
    order = data.draw(st.permutations(range(rewards.shape[1])))
    np.testing.assert_allclose(
        pvar.preference_variance(rewards[:, order]),
        pvar.preference_variance(rewards),
        rtol=1e-13,
        atol=SMALLEST_NORMAL,
    )


@given(matrices, st.integers(2, 3))
def test_repeating_all_prompts_repeats_their_values(rewards, times):
    np.testing.assert_array_equal(
        pvar.preference_variance(np.tile(rewards, (times, 1))),
        np.tile(pvar.preference_variance(rewards), times),
    )


@given(matrices)
def test_repeating_all_responses_only_adds_pairs_of_equals(rewards):
    # Doubling n responses leaves each ordered pair of different ones four times, and the 2n(2n − 1)
    # pairs now include 2n of a response with its copy, which add 0: U' = U · 4n(n−1) / (2n(2n−1)).
    num = rewards.shape[1]
    np.testing.assert_allclose(
        pvar.preference_variance(np.tile(rewards, (1, 2))),
        pvar.preference_variance(rewards) * (2 * num - 2) / (2 * num - 1),
        rtol=1e-13,
        atol=SMALLEST_NORMAL,
    )


@given(matrices, st.floats(1, 1000))
def test_grows_when_all_rewards_of_a_prompt_are_stretched(rewards, factor):
    before, after = (pvar.preference_variance(rewards * by) for by in (1, factor))
    assert (after >= before * (1 - 1e-12)).all()


@given(matrices, st.floats(0.1, 10))
def test_the_scale_is_the_unit_of_the_rewards(rewards, scale):
    np.testing.assert_allclose(
        pvar.preference_variance(rewards, scale=scale),
        pvar.preference_variance(rewards / scale),
        rtol=1e-7,
        atol=1e-15,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiny_differences_keep_their_relative_accuracy(dtype):
    # (σ(d) − ½)² = d²/16 · (1 − d²/6 …): 6.25e-14 for d = 1e-6. σ(d) − ½ in float32 would be 0.
    assert pvar.preference_variance(np.array([[1e-6, 0.0]], dtype)) == pytest.approx(
        [6.25e-14], rel=1e-6
    )


@pytest.mark.parametrize(
    ("dtype", "largest"), [(np.float32, 1e4), (np.float32, 3e38), (np.float64, 1.7e308)]
)
def test_huge_differences_are_certain_preferences(dtype, largest):
    # One of three responses far above the other two: 4 of 6 ordered pairs at ¼.
    rewards = np.array([[largest, -largest, -largest]], dtype)
    assert pvar.preference_variance(rewards) == pytest.approx([1 / 6])


@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(-20, 20, width=32)))
def test_float32_is_accurate_to_a_few_roundings(rewards):
    exact = pvar.preference_variance(rewards.astype(np.float64))
    single = pvar.preference_variance(rewards)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact, rtol=2e-6, atol=1e-37)


def test_half_precision_is_computed_in_single_and_integers_in_double():
    assert pvar.preference_variance(np.zeros((1, 2), np.float16)).dtype == np.float32
    assert pvar.preference_variance([[2, 1]]) == pytest.approx([by_two_loops([2.0, 1.0])])


def test_prompts_across_blocks_are_computed_alike():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(40_000, 3))  # two blocks
    rewards[30_000, 1] = np.nan
    one_by_one = [pvar.preference_variance(row[None])[0] for row in rewards[::1000]]
    np.testing.assert_allclose(pvar.preference_variance(rewards)[::1000], one_by_one, rtol=1e-13)


def test_the_input_is_left_as_it_was():
    rewards = np.array([[1.0, np.nan, 2.0]])
    pvar.preference_variance(rewards)
    np.testing.assert_array_equal(rewards, [[1.0, np.nan, 2.0]])


@pytest.mark.parametrize("shape", [(3, 0), (3, 1), (0, 5)])
def test_without_a_pair_there_is_no_value(shape):
    assert np.isnan(pvar.preference_variance(np.zeros(shape))).all()
    assert pvar.preference_variance(np.zeros(shape)).shape == shape[:1]


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e-40])
def test_an_unusable_scale_is_refused(scale):
    with pytest.raises(ConfigError, match="scale is"):
        pvar.preference_variance([[1.0, 2.0]], scale=scale)


@pytest.mark.parametrize(
    ("rewards", "mask", "message"),
    [
        ([1.0, 2.0], None, r"shape \(2,\).*num_prompts, num_responses"),
        ([["a", "b"]], None, "type <U1"),
        ([["a", 1.0], ["b", None]], None, "no column of anything else"),
        ([[1.0, True], [1.0, None]], None, "NaN where one is missing"),
        ([[1.0, 2.0]], [True, False], r"shape \(2,\)"),
        ([[1.0, 2.0]], [[1, 0]], "expected bool"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(rewards, mask, message):
    with pytest.raises(InputError, match=message):
        pvar.preference_variance(rewards, mask=mask)


# Variants that are in use elsewhere, and the property each of them loses.


def variance_over_unordered_pairs(row):
    pairs = [(i, j) for i in range(len(row)) for j in range(i)]
    return np.var([preference(row[i] - row[j]) for i, j in pairs])


def test_variance_over_unordered_pairs_would_depend_on_the_order_of_responses():
    rewards = np.array([2.0, 0.0, 1.0])
    wrong = [variance_over_unordered_pairs(rewards[order]) for order in ([0, 1, 2], [1, 2, 0])]
    right = pvar.preference_variance(np.stack([rewards, rewards[[1, 2, 0]]]))
    assert abs(wrong[0] - wrong[1]) > 0.01
    assert right[0] == pytest.approx(right[1], rel=1e-14)


def test_including_the_diagonal_would_make_prompts_with_different_n_incomparable():
    # Rewards are coin flips between two values so far apart that (p − ½)² is ¼ if they differ,
    # which half of the pairs do: ⅛ on average for every n. With the n pairs i = i, ⅛ · (n − 1)/n.
    rng = np.random.default_rng(0)
    for num in (2, 8):
        rewards = 1000.0 * rng.integers(0, 2, size=(20_000, num))
        with_diagonal = (rewards[:, :, None] != rewards[:, None, :]).mean() / 4
        # The standard error of the mean is at most (1/8)/√20000 ≈ 0.0009.
        assert pvar.preference_variance(rewards).mean() == pytest.approx(1 / 8, abs=0.003)
        assert with_diagonal == pytest.approx((num - 1) / num / 8, abs=0.003)


def test_without_control_of_the_scale_the_top_becomes_ties():
    rewards = np.random.default_rng(0).normal(size=(500, 4))
    fitted, too_large = (pvar.preference_variance(rewards * by) for by in (1, 1e4))
    assert len(np.unique(np.round(fitted, 12))) == 500
    assert ties_at_cut(np.round(too_large, 6), 50).num_tied > 250
    assert saturation_share(rewards * 1e4) > 0.99
    assert saturation_share(rewards * 1e4, scale=1e4) == saturation_share(rewards)


# Standard error


def leave_one_out_stderr(row):
    left_out = [by_two_loops(np.delete(row, i)) for i in range(len(row))]
    return math.sqrt((len(row) - 1) / len(row) * np.sum((left_out - np.mean(left_out)) ** 2))


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=6),
        elements=st.floats(-20, 20),
    )
)
def test_the_standard_error_is_the_jackknifes(rewards):
    np.testing.assert_allclose(
        pvar.preference_variance_stderr(rewards),
        [leave_one_out_stderr(row) for row in rewards],
        rtol=1e-6,
        atol=1e-12,
    )


def test_the_standard_error_leaves_missing_rewards_out():
    np.testing.assert_allclose(
        pvar.preference_variance_stderr(
            [[1.0, np.nan, 3.0, 0.0, 9.0]], mask=[[True] * 4 + [False]]
        ),
        [leave_one_out_stderr(np.array([1.0, 3.0, 0.0]))],
    )


def test_two_responses_say_nothing_of_the_error():
    assert np.isnan(pvar.preference_variance_stderr([[1.0, 2.0, np.nan]])).all()


@pytest.mark.parametrize(
    ("num_responses", "lowest", "highest"),
    # Nominal 0.95. A skewed statistic of few responses covers less, as the module says.
    [(5, 0.88, 0.97), (8, 0.90, 0.97), (16, 0.915, 0.97), (64, 0.935, 0.965)],
)
def test_intervals_from_the_standard_error_cover_the_truth(num_responses, lowest, highest):
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(4000, num_responses))
    # E[(σ(d) − ½)²] for d ~ N(0, 2), by Gauss–Hermite quadrature: ∫ f(2x) exp(−x²) dx / √π.
    nodes, weights = np.polynomial.hermite.hermgauss(80)
    truth = np.sum(weights * (np.tanh(nodes) / 2) ** 2) / math.sqrt(math.pi)
    estimates = pvar.preference_variance(rewards)
    assert estimates.mean() == pytest.approx(truth, abs=0.002)  # unbiased
    quantile = scipy.stats.t.ppf(0.975, num_responses - 1)
    reach = quantile * pvar.preference_variance_stderr(rewards)
    coverage = np.mean(np.abs(estimates - truth) <= reach)
    assert lowest < coverage < highest


# Saturation, distinct responses, ties


def test_saturation_counts_pairs_beyond_the_threshold():
    # |p − ½| > 0.49 where |d| > ln 99 ≈ 4.595. Differences: 4.5, 4.7 and 0.2: one pair of three.
    assert saturation_share([[0.0, 4.5, 4.7]]) == pytest.approx(1 / 3)
    assert count_saturated([[0.0, 4.5, 4.7], [0.0, 9.0, np.nan]]) == (4, 2)


def test_without_pairs_the_saturation_is_unknown():
    assert math.isnan(saturation_share([[1.0, np.nan]]))


def test_ties_at_the_cut_are_counted():
    values = [0.2, 0.1, 0.2, 0.25, math.nan, 0.2, 0.0]
    assert ties_at_cut(values, 3) == CutTies(value=0.2, num_tied=3, num_taken=2)
    assert ties_at_cut(values, 1) == CutTies(value=0.25, num_tied=1, num_taken=1)


@pytest.mark.parametrize("num_selected", [0, 3])
def test_selecting_more_than_there_is_is_refused(num_selected):
    with pytest.raises(ConfigError, match=f"num_selected is {num_selected}; expected 1 to 2"):
        ties_at_cut([0.1, 0.2, math.nan], num_selected)


# Long form


def test_the_long_form_agrees_with_the_matrix():
    rng = np.random.default_rng(0)
    index = rng.permutation(np.repeat(np.arange(5), [1, 2, 3, 3, 6]))
    rewards = rng.normal(size=len(index))
    rewards[[0, 5]] = np.nan
    result = variance_by_prompt(index, rewards, scale=2.0)
    for prompt in range(5):
        row = rewards[index == prompt]
        assert result.num_responses[prompt] == np.isfinite(row).sum()
        np.testing.assert_allclose(result.pvar[prompt], by_two_loops(row, 2.0))
        np.testing.assert_allclose(
            result.stderr[prompt], pvar.preference_variance_stderr(row[None], scale=2.0)[0]
        )


def test_a_number_without_rows_is_a_prompt_without_responses():
    result = variance_by_prompt(np.array([0, 0, 2]), [1.0, 2.0, 3.0])
    assert result.num_responses.tolist() == [2, 0, 1]
    assert np.isnan(result.pvar[1:]).all()
    assert result.pairs == (1, 0)


def test_importing_the_package_loads_no_heavy_library():
    script = (
        "import pvar, sys; print({'scipy', 'sklearn', 'pyarrow', 'torch'} & sys.modules.keys())"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.stdout.strip() == "set()", loaded.stderr


def test_lists_of_different_lengths_are_prompts_with_missing_rewards():
    ragged = [[2.0, -0.3, 0.4], [], [1, 1.1], (0.5,)]
    padded = [[2.0, -0.3, 0.4], [math.nan] * 3, [1.0, 1.1, math.nan], [0.5, math.nan, math.nan]]
    for function in (pvar.preference_variance, pvar.preference_variance_stderr):
        np.testing.assert_array_equal(function(ragged), function(padded))
    for wrong in ([[1.0], [1.0, "b"]], [[1.0], ["a", "b"]], [[1.0], [[1.0], [2.0]]]):
        with pytest.raises(InputError, match="rewards have the"):
            pvar.preference_variance(wrong)


def test_wide_tables_and_columns_of_lists_are_read_as_they_are():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    rewards = [[2.0, -0.3, None], [1.0, 1.0, 1.1]]
    expected = pvar.preference_variance([[2.0, -0.3, math.nan], [1.0, 1.0, 1.1]])
    frame = pandas.DataFrame(rewards, columns=["a", "b", "c"], index=["x", "y"])
    ragged = [[2.0, -0.3], [1.0, 1.0, 1.1]]
    for table in (
        rewards,
        frame,
        frame.convert_dtypes(),  # nulls are pandas' NA
        frame.convert_dtypes(dtype_backend="pyarrow"),
        pyarrow.Table.from_pandas(frame, preserve_index=False),
        pandas.Series(ragged),
        pyarrow.array(ragged),
        [[2.0, -0.3], [1.0, 1.0, 1.1, None]],
    ):
        np.testing.assert_array_equal(pvar.preference_variance(table), expected)
    with pytest.raises(InputError, match="no column of anything else"):
        pvar.preference_variance(frame.reset_index())


def test_a_table_with_a_row_per_response_has_a_row_per_prompt():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"prompt_id": ["b", "a", "b", "a", "c", "a"], "reward": [1.0, 2.0, 3.0, 0.5, 1.0, np.nan]}
    )
    table = pvar.variance_table(frame["prompt_id"], frame["reward"])
    assert table.prompt_id.tolist() == ["a", "b", "c"]
    assert table.num_responses.tolist() == [2, 2, 1]
    expected = pvar.preference_variance([[2.0, 0.5], [1.0, 3.0], [1.0, np.nan]])
    np.testing.assert_array_equal(table.pvar, expected)
    assert pandas.DataFrame(table._asdict()).columns.tolist() == [
        "prompt_id", "num_responses", "pvar", "stderr",
    ]  # fmt: skip
    assert pvar.variance_table([], []).pvar.tolist() == []


def test_lists_of_which_no_array_can_be_made_are_named():
    for rewards in ([1.0, [1.0, 2.0]], [[1.0, [2.0]], [1.0, 2.0]]):
        with pytest.raises(InputError, match="the rewards are lists of different lengths or depth"):
            pvar.preference_variance(rewards)
    with pytest.raises(InputError, match="the rows of the mask are lists of different lengths"):
        pvar.preference_variance([[1.0], [1.0, 2.0]], mask=[[True], [True, True]])


@pytest.mark.parametrize(
    ("ids", "rewards", "message"),
    [
        (["a", "b"], [1.0], "2 prompt numbers for 1 rewards"),
        (["a", None], [1.0, 2.0], "the prompt ids cannot be sorted"),
        ([["a"]], [1.0], r"prompt ids have the shape \(1, 1\)"),
        ([["a"], ["b", "c"]], [1.0, 2.0], "the prompt ids are lists of different lengths"),
        ([7.0, float("nan"), 7.0], [1.0, 2.0, 3.0], "1 prompt ids are missing"),
    ],
)
def test_columns_that_make_no_table_are_refused(ids, rewards, message):
    with pytest.raises(InputError, match=message):
        pvar.variance_table(ids, rewards)


def test_the_version_is_that_of_the_package():
    assert pvar.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="module 'pvar' has no attribute 'nothing'"):
        pvar.nothing  # noqa: B018
