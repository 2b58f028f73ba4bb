import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pvar.errors import ConfigError, InputError
from pvar.row_counts import RowCounts
from pvar.selection import (
    CONTROL,
    MEASURES,
    STRATEGIES,
    Budget,
    Candidates,
    MatchedStrategyName,
    RewardMatrix,
    StrategyName,
    measure_by_prompt,
    measure_rewards,
    select,
)

NAN = float("nan")


def candidates(pvar, ids=None, num_tokens=None, **measures) -> Candidates:
    ids = [f"p{number:03d}" for number in range(len(pvar))] if ids is None else ids
    return Candidates(
        np.array(ids),
        {name: np.array(values, float) for name, values in {"pvar": pvar, **measures}.items()},
        None if num_tokens is None else np.array(num_tokens),
    )


FIVE = candidates(
    # p000 p001 p002 p003 p004
    [0.10, 0.25, 0.00, 0.20, NAN],
    reward_gap=[4.0, 3.0, 2.0, 1.0, 5.0],
    reward_variance=[2.0, 1.0, 5.0, 4.0, 3.0],
    implicit_gap=[-1.0, 0.5, -2.0, 3.0, 0.0],
    disagreement=[0.01, 0.02, 0.03, 0.0, 0.04],
    entropy=[0.1, 0.6, 0.2, 0.5, 0.3],
    rip=[0.9, 0.1, 0.2, 0.8, 0.3],
    implicit_loss=[0.7, 0.1, 2.0, 0.3, 0.9],
    lossdiff_irm=[0.4, 0.3, 0.1, 0.45, 0.0],
)


@pytest.mark.parametrize(
    ("strategy", "best_two"),
    [
        ("top", ["p001", "p003"]),
        ("bottom", ["p002", "p000"]),
        ("reward_gap", ["p004", "p000"]),
        ("reward_variance", ["p002", "p003"]),
        ("implicit_gap_small", ["p002", "p000"]),
        ("implicit_gap_large", ["p003", "p001"]),
        ("disagreement", ["p004", "p002"]),
        ("entropy", ["p001", "p003"]),
        ("rip", ["p000", "p003"]),
        ("selective", ["p001", "p003"]),
        ("lossdiff_irm", ["p004", "p002"]),
        ("all", ["p000", "p001", "p002", "p003", "p004"]),
    ],
)
def test_each_strategy_prefers_what_its_name_says(strategy: StrategyName, best_two):
    assert select(FIVE, strategy, Budget(count=2), seed=0).prompt_ids.tolist() == best_two


def test_every_strategy_name_has_a_strategy():
    assert StrategyName.__args__ == tuple(STRATEGIES)


def test_a_comparison_offers_what_random_prompts_can_match():
    assert set(MatchedStrategyName.__args__) == set(STRATEGIES) - {CONTROL, "all", "threshold"}


def test_a_prompt_without_pvar_is_never_selected_and_is_counted():
    selection = select(FIVE, "bottom", Budget(fraction=1.0), seed=0)
    assert selection.prompt_ids.tolist() == ["p002", "p000", "p003", "p001"]
    assert selection.num_without_measure == 1
    assert selection.row_counts == RowCounts(rows_in=5, rows_out=4, rejected={"no_measure": 1})


def test_infinite_measures_are_missing_not_the_best():
    chosen = select(candidates([0.1, np.inf, -np.inf]), "top", Budget(count=3), seed=0)
    assert chosen.prompt_ids.tolist() == ["p000"]
    assert chosen.num_without_measure == 2


def test_the_full_data_set_includes_prompts_without_pvar_and_says_how_many():
    selection = select(FIVE, "all", Budget(fraction=0.1), seed=0)
    assert len(selection) == 5
    assert selection.num_without_measure == 1
    assert selection.row_counts == RowCounts(rows_in=5, rows_out=5)


def test_ties_are_broken_by_prompt_id_and_counted():
    # Two of three prompts with PVar 0.2 fit; "a" and "b" come before "c", whatever the row order.
    tied = candidates([0.2, 0.1, 0.2, 0.25, 0.2], ids=["c", "d", "a", "e", "b"])
    selection = select(tied, "top", Budget(count=3), seed=0)
    assert selection.prompt_ids.tolist() == ["e", "a", "b"]
    assert selection.cut_value == 0.2
    assert (selection.num_tied_selected, selection.num_tied_left_out) == (2, 1)


def test_integer_ids_are_ordered_as_numbers():
    tied = candidates([0.2, 0.2, 0.2], ids=[10, 9, 100])
    assert select(tied, "top", Budget(count=2), seed=0).prompt_ids.tolist() == [9, 10]


def test_a_fraction_is_of_all_candidates_and_rounds_to_the_nearest():
    pool = candidates([0.01 * n for n in range(25)])
    # 0.1 · 25 = 2.5 → 3;  0.06 · 25 = 1.5 → 2;  0.001 · 25 = 0.025 → at least 1.
    sizes = [len(select(pool, "top", Budget(fraction=f), seed=0)) for f in (0.1, 0.06, 0.001)]
    assert sizes == [3, 2, 1]


def test_a_token_budget_ends_before_the_first_prompt_beyond_it():
    # By PVar: p003 (40), p002 (30), p001 (50), p000 (10). 40 + 30 = 70; 120 is beyond 100.
    pool = candidates([0.1, 0.15, 0.2, 0.25], num_tokens=[10, 50, 30, 40])
    selection = select(pool, "top", Budget(tokens=100), seed=0)
    assert selection.prompt_ids.tolist() == ["p003", "p002"]
    assert select(pool, "top", Budget(tokens=70), seed=0).prompt_ids.tolist() == ["p003", "p002"]
    assert len(select(pool, "top", Budget(tokens=39), seed=0)) == 0


def test_the_threshold_is_inclusive_and_the_budget_limits_it():
    selection = select(FIVE, "threshold", Budget(fraction=1.0), seed=0, threshold=0.1)
    assert selection.prompt_ids.tolist() == ["p001", "p003", "p000"]
    assert selection.row_counts.rejected == {"no_measure": 1, "below_threshold": 1}
    limited = select(FIVE, "threshold", Budget(count=2), seed=0, threshold=0.1)
    assert limited.prompt_ids.tolist() == ["p001", "p003"]


@pytest.mark.parametrize("threshold", [None, -0.1, 0.26, NAN])
def test_a_threshold_outside_the_range_of_pvar_is_refused(threshold):
    with pytest.raises(ConfigError, match=r"between 0 and 0\.25"):
        select(FIVE, "threshold", Budget(count=1), seed=0, threshold=threshold)


def test_stratified_takes_the_same_number_from_each_decile():
    # 100 prompts with PVar rising by id: decile d is p0d0 … p0d9.
    pool = candidates([0.0025 * number for number in range(100)])
    selection = select(pool, "stratified", Budget(count=30), seed=0)
    deciles = [int(prompt_id[2]) for prompt_id in selection.prompt_ids.tolist()]
    assert np.bincount(deciles).tolist() == [3] * 10
    assert sorted(deciles[:10]) == list(range(10))  # any prefix is balanced too
    assert selection.cut_value is None


def test_stratified_by_rank_survives_saturation():
    # 60 % of the pool has PVar ¼, so six of the ten strata are of them: 6 · 5 of 50 are taken.
    pool = candidates([0.25] * 60 + [0.001 * number for number in range(40)])
    selection = select(pool, "stratified", Budget(count=50), seed=0)
    assert np.count_nonzero(selection.values == 0.25) == 30


def test_stratified_is_random_within_a_decile():
    pool = candidates([0.0025 * number for number in range(100)])
    first, second = (
        set(select(pool, "stratified", Budget(count=30), seed=seed).prompt_ids.tolist())
        for seed in (0, 1)
    )
    assert first != second


def test_random_depends_on_the_seed_and_is_uniform():
    pool = candidates([0.1] * 200)
    selections = [
        select(pool, "random", Budget(fraction=0.5), seed=seed).prompt_ids.tolist()
        for seed in range(100)
    ]
    assert selections[0] != selections[1]
    # Each prompt is drawn Binomial(100, ½) times: mean 50, deviation 5; six deviations is 30.
    drawn = np.bincount([int(each[1:]) for chosen in selections for each in chosen])
    assert drawn.min() > 20
    assert drawn.max() < 80


def test_a_new_prompt_displaces_at_most_one_of_a_random_selection():
    ids = [f"p{number:03d}" for number in range(51)]
    without = select(candidates([0.1] * 50, ids[:50]), "random", Budget(count=10), seed=3)
    with_it = select(candidates([0.1] * 51, ids), "random", Budget(count=10), seed=3)
    assert len(set(without.prompt_ids.tolist()) - set(with_it.prompt_ids.tolist())) <= 1


def test_random_order_is_the_same_in_every_process():
    program = (
        "import json, numpy as np; from pvar.selection import *;"
        "pool = Candidates(np.arange(50).astype(str), {'pvar': np.full(50, 0.1)});"
        "print(json.dumps(select(pool, 'random', Budget(count=5), seed=7).prompt_ids.tolist()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    pool = Candidates(np.arange(50).astype(str), {"pvar": np.full(50, 0.1)})
    here = select(pool, "random", Budget(count=5), seed=7)
    assert json.loads(run.stdout) == here.prompt_ids.tolist()


POOLS = st.lists(
    st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.25, NAN]), min_size=1, max_size=40
).flatmap(lambda pvar: st.tuples(st.just(pvar), st.permutations(range(len(pvar)))))


@given(POOLS, st.sampled_from(sorted(STRATEGIES)), st.integers(1, 45), st.booleans())
def test_row_order_never_changes_a_selection(pool, strategy, number, in_tokens):
    pvar, permutation = pool
    ids = np.array([f"p{number}" for number in range(len(pvar))])
    columns = [ids, np.array(pvar), np.arange(len(pvar)) % 3]

    def chosen(rows):
        ids, values, num_tokens = (column[rows] for column in columns)
        mixed = Candidates(ids, dict.fromkeys(MEASURES, values), num_tokens)
        budget = Budget(tokens=number) if in_tokens else Budget(count=number)
        return select(mixed, strategy, budget, seed=5, threshold=0.1)

    straight, shuffled = chosen(np.arange(len(pvar))), chosen(np.array(permutation))
    assert straight.prompt_ids.tolist() == shuffled.prompt_ids.tolist()
    assert straight.row_counts == shuffled.row_counts
    assert straight.num_tied_left_out == shuffled.num_tied_left_out
    assert straight.row_counts.rows_out == len(straight)


def test_the_seed_decides_something_for_exactly_the_strategies_that_say_so():
    tied = np.full(60, 0.1)
    pool = candidates(**dict.fromkeys(MEASURES, tied))
    chosen = {
        (strategy, seed): tuple(
            select(pool, strategy, Budget(count=9), seed=seed, threshold=0.05).prompt_ids.tolist()
        )
        for strategy in STRATEGIES
        for seed in range(5)
    }
    differ = {
        strategy for strategy, seed in chosen if chosen[strategy, seed] != chosen[strategy, 0]
    }
    assert differ == {name for name, strategy in STRATEGIES.items() if strategy.draws}


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, NAN]), min_size=1, max_size=30), st.integers(1, 30))
def test_nothing_left_out_beats_what_was_taken(pvar, count):
    pool = candidates(pvar)
    selection = select(pool, "top", Budget(count=count), seed=0)
    taken = set(selection.prompt_ids.tolist())
    left = [
        value
        for prompt_id, value in zip(pool.prompt_ids.tolist(), pvar, strict=True)
        if prompt_id not in taken and not np.isnan(value)
    ]
    assert len(selection) == min(count, int(np.count_nonzero(~np.isnan(pvar))))
    assert not left or min(selection.values) >= max(left)


@pytest.mark.parametrize(
    ("strategy", "budget", "needed"),
    [
        ("disagreement", Budget(count=1), "disagreement"),
        ("implicit_gap_small", Budget(count=1), "implicit_gap"),
        ("selective", Budget(count=1), "implicit_loss"),
        ("rip", Budget(count=1), "rip"),
        ("top", Budget(tokens=1), "num_tokens"),
    ],
)
def test_a_measure_that_is_needed_and_missing_is_named(strategy, budget, needed):
    with pytest.raises(InputError, match=needed):
        select(candidates([0.1, 0.2]), strategy, budget, seed=0)


def test_candidates_are_one_row_per_prompt():
    with pytest.raises(InputError, match="duplicate prompt id a"):
        candidates([0.1, 0.2, 0.1], ids=["a", "b", "a"])
    with pytest.raises(InputError, match="duplicate prompt id 7"):
        candidates([0.1, 0.2, 0.1], ids=[6, 7, 7])
    with pytest.raises(InputError, match=r"pvar has shape \(2,\), prompt_ids has \(3,\)"):
        candidates([0.1, 0.2], ids=["a", "b", "c"])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"fraction": 0.1, "count": 3},
        {"fraction": 0.0},
        {"fraction": 1.01},
        {"count": 0},
        {"tokens": 0},
        {"fraktion": 0.1},
    ],
)
def test_a_budget_is_exactly_one_limit_within_bounds(fields):
    with pytest.raises(ValidationError):
        Budget(**fields)


def test_every_field_of_the_budget_has_a_help_text():
    properties = Budget.model_json_schema()["properties"]
    assert all(field["description"] for field in properties.values())


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_long_and_matrix_form_have_the_same_measures(scale):
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(20, 5))
    rewards[rng.uniform(size=rewards.shape) < 0.3] = NAN
    rewards[3] = NAN
    rewards[4] = [NAN, NAN, 1.0, NAN, NAN]
    order = rng.permutation(rewards.size)
    index = np.repeat(np.arange(20), 5)[order]
    matrix = measure_rewards(RewardMatrix(rewards[None], (scale,)))
    assert set(matrix) >= {"pvar", "reward_gap", "reward_variance"}
    for name, values in matrix.items():
        long = measure_by_prompt(index, rewards.ravel()[order], MEASURES[name], scale=scale)
        np.testing.assert_allclose(long, values, rtol=1e-12)
        assert np.isnan(values[3])
    # Of two models, of the lengths of responses, and of other rewards.
    for name in ("disagreement", "entropy", "rip", "implicit_gap", "implicit_loss", "lossdiff_irm"):
        assert name not in matrix
        with pytest.raises(InputError, match=rf"{name} cannot be computed .* pvar and {name}"):
            measure_by_prompt(index, rewards.ravel()[order], MEASURES[name])
    for name in ("pvar", "reward_gap", "reward_variance"):  # one reward has none of them
        assert np.isnan(matrix[name][4])


def test_measures_over_several_models_are_of_the_mean_reward_in_units_of_its_scale():
    rewards = np.array([[[1.0, 3.0, NAN]], [[10.0, 50.0, 20.0]]])
    measures = measure_rewards(RewardMatrix(rewards, (1.0, 10.0)))
    # Means of reward / scale: (1 + 1)/2 = 1 and (3 + 5)/2 = 4; the third has one model's reward.
    assert measures["reward_gap"] == pytest.approx([3.0])
    assert measures["reward_variance"] == pytest.approx([4.5])
    assert {"disagreement", "entropy"} <= set(measures)
