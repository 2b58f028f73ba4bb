"""Which pairs people are asked about: order, quotas, the pair shown, and its order."""

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.annotation_queue import (
    AnsweredPrompt,
    QueueMeasure,
    Quota,
    choose_pair,
    fill_quotas,
    make_queue,
)
from pvar.digest import prompt_id
from pvar.errors import ConfigError, InputError
from pvar.records import Message, Prompt
from pvar.selection import RewardMatrix
from pvar.variance import preference_variance, preference_variance_stderr

NAN = math.nan
MEASURES: tuple[QueueMeasure, ...] = get_args(QueueMeasure)


def prompt(text: str, num_answers: int, source: str = "web") -> AnsweredPrompt:
    messages = (Message("user", text),)
    answers = tuple(f"{text}, answer {number}" for number in range(num_answers))
    return AnsweredPrompt(Prompt(prompt_id(messages), messages, "train", source), answers)


def matrix(*models: list[list[float]]) -> RewardMatrix:
    return RewardMatrix(np.array(models, float), (1.0,) * len(models))


def asked(queue_of: RewardMatrix, measure: QueueMeasure, budget: int = 9) -> list[str]:
    prompts = [
        prompt(chr(97 + row), queue_of.rewards.shape[2]) for row in range(queue_of.rewards.shape[1])
    ]
    queue = make_queue(prompts, queue_of, measure=measure, budget=budget)
    return [pair.messages[0].content for pair in queue.pairs]


def test_a_high_pvar_by_the_luck_of_few_responses_comes_after_a_sure_one() -> None:
    """PVar of a is larger, but rests on one response of three; b's three pairs are all large."""
    rewards = [[0.0, 0.0, 40.0], [-1.5, 0.0, 1.5]]
    pvar = preference_variance(np.array(rewards))
    # a: pairs with (p − ½)² = 0, ¼, ¼, so PVar is their mean, ⅙. Its jackknife error is with
    # s = (¼, ¼, ½), s̄ = ⅓: √(4/(3·2·1) · (2·(1/12)² + (1/6)²)) = 1/6, so the bound is e^−1.645 ⅙.
    assert pvar[0] == pytest.approx(1 / 6)
    assert preference_variance_stderr(np.array(rewards))[0] == pytest.approx(1 / 6)
    assert pvar[0] > pvar[1]
    assert asked(matrix(rewards), "pvar") == ["a", "b"]
    assert asked(matrix(rewards), "pvar_lower") == ["b", "a"]
    prompts = [prompt(name, 3) for name in "ab"]
    (*_, last) = make_queue(prompts, matrix(rewards), measure="pvar_lower", budget=2).pairs
    assert last.value == pytest.approx(math.exp(-1.645) / 6)


def test_a_prompt_that_surely_teaches_nothing_comes_last() -> None:
    """PVar 0 has the error 0, and a bound of PVar minus errors can be less than that."""
    assert asked(matrix([[1, 1, 1], [-1, 0, 1]]), "pvar_lower") == ["b", "a"]


def test_two_reward_models_are_asked_about_where_they_differ() -> None:
    """a: both prefer the same. b: they contradict. c: both are undecided."""
    models = matrix([[3, 0], [3, 0], [0, 0]], [[3, 0], [0, 3], [0, 0]])
    assert asked(models, "disagreement")[0] == "b"  # it is 0 for a and c
    # Of b and c the mean preference is ½ alike: log 2 each, ordered by id.
    assert set(asked(models, "entropy", budget=2)) == {"b", "c"}
    assert asked(models, "pvar")[-1] == "c"
    with pytest.raises(ConfigError, match="disagreement compares reward models, but there is 1"):
        asked(matrix([[3, 0]]), "disagreement")


def test_prompts_without_a_measure_are_left_out_and_counted() -> None:
    rewards = matrix([[1, NAN, NAN], [1, 2, NAN], [1, 2, 3]])
    prompts = [prompt(name, 3) for name in "abc"]
    lower = make_queue(prompts, rewards, measure="pvar_lower", budget=1)
    assert [pair.messages[0].content for pair in lower.pairs] == ["c"]
    assert lower.row_counts.rejected == {"no_measure": 2}
    plain = make_queue(prompts, rewards, measure="pvar", budget=1)
    assert plain.row_counts.rejected == {"no_measure": 1, "over_budget": 1}
    assert set(asked(rewards, "random")) == {"b", "c"}


@pytest.mark.parametrize(
    ("measure", "pair"),
    [
        # Means 2, 0.5, −1 and 0: the best against the worst.
        ("pvar", (0, 2)),
        # First minus second model's gap: only responses 1 and 3 are ordered in opposite ways.
        ("disagreement", (1, 3)),
        ("entropy", (1, 3)),
    ],
)
def test_the_pair_is_the_one_that_the_measure_is_about(
    measure: QueueMeasure, pair: tuple[int, int]
) -> None:
    rewards = np.array([[2.0, -1.0, -1.0, 1.5], [2.0, 2.0, -1.0, -1.5]])
    assert choose_pair(rewards, measure, 0.0) == pair


def test_a_pair_has_rewards_of_every_model() -> None:
    rewards = np.array([[9.0, 1.0, 0.0], [NAN, 0.0, 1.0]])
    for measure in MEASURES:
        assert choose_pair(rewards, measure, 0.9) == (1, 2)


def test_random_shows_every_pair_about_equally_often() -> None:
    rewards = np.zeros((1, 3))
    keys = (np.arange(300) + 0.5) / 300 + 1e-4 * np.arange(300) % 1e-3
    shown = [choose_pair(rewards, "random", key) for key in keys]
    assert {pair: shown.count(pair) > 50 for pair in set(shown)} == {
        (0, 1): True,
        (0, 2): True,
        (1, 2): True,
    }


def test_the_better_answer_is_shown_first_in_about_half_of_the_pairs() -> None:
    """Of 400 fair coins, 160 to 240 is four standard errors."""
    prompts = [prompt(f"p{number}", 2) for number in range(400)]
    queue = make_queue(prompts, matrix([[1.0, 0.0]] * 400), measure="pvar", budget=400)
    assert 160 <= sum(pair.reward_1 > pair.reward_2 for pair in queue.pairs) <= 240


def test_the_order_in_a_pair_is_the_same_for_opposite_rewards() -> None:
    prompts = [prompt(f"p{number}", 2) for number in range(20)]
    there, back = (
        make_queue(prompts, matrix([pair] * 20), measure="pvar", budget=20).pairs
        for pair in ([1.0, 0.0], [0.0, 1.0])
    )
    assert [pair[:6] for pair in there] == [pair[:6] for pair in back]
    assert [pair.reward_1 for pair in there] == [pair.reward_2 for pair in back]


@given(st.permutations(range(12)), st.sampled_from(MEASURES), st.integers(1, 12))
def test_a_queue_does_not_depend_on_the_order_of_the_rows(
    places: list[int], measure: QueueMeasure, budget: int
) -> None:
    rewards = np.random.default_rng(3).integers(-2, 3, (2, 12, 4)).astype(float)
    prompts = [prompt(f"p{row}", 4, "ab"[row % 2]) for row in range(12)]
    quotas = {"a": Quota(0.25, 0.5)}
    one, other = (
        make_queue(
            [prompts[row] for row in order],
            RewardMatrix(rewards[:, list(order)], (1.0, 2.0)),
            measure=measure,
            budget=budget,
            quotas=quotas,
        )
        for order in (range(12), places)
    )
    assert one == other


def test_minimum_and_maximum_shares_by_hand() -> None:
    """Best first: a a a a b c; four pairs, at most half of a, at least a quarter of c."""
    sources = ["a", "a", "a", "a", "b", "c"]
    quotas = {"a": Quota(max_share=0.5), "c": Quota(min_share=0.25)}
    assert fill_quotas(range(6), sources, 4, quotas) == [0, 1, 4, 5]
    assert fill_quotas(range(6), sources, 4, {}) == [0, 1, 2, 3]
    # c has one prompt only, so others take the places that were kept for it.
    assert fill_quotas(range(6), sources, 4, {"c": Quota(min_share=0.75)}) == [0, 1, 2, 5]
    # 0.1 · 30 is 3.0000000000000004 in floats, and asks for three.
    many = ["a"] * 40 + ["b"] * 40
    taken = fill_quotas(range(80), many, 30, {"b": Quota(0.1, 0.1)})
    assert sum(many[row] == "b" for row in taken) == 3


def test_minimums_that_are_rounded_up_stay_within_the_budget() -> None:
    """Of ten pairs, 0.33 each are 3.3 of a, b and c: one of them is rounded up, not all three."""
    sources = ["a", "b", "c"] * 10
    for shares, expected in (
        ((0.33, 0.33, 0.33), {"a": 4, "b": 3, "c": 3}),
        ((0.32, 0.33, 0.35), {"a": 3, "b": 3, "c": 4}),  # the largest remainder
        ((0.21, 0.0, 0.0), {"a": 4, "b": 3, "c": 3}),
    ):
        quotas = {name: Quota(share) for name, share in zip("abc", shares, strict=True)}
        taken = fill_quotas(range(30), sources, 10, quotas)
        assert {name: sum(sources[row] == name for row in taken) for name in "abc"} == expected


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=40),
    st.integers(1, 40),
    st.tuples(st.floats(0, 0.33), st.floats(0, 0.33), st.floats(0, 0.33)),
)
def test_several_minimums_are_kept_to_less_than_a_pair(
    sources: list[str], budget: int, shares: tuple[float, float, float]
) -> None:
    quotas = {name: Quota(share) for name, share in zip("abc", shares, strict=True)}
    usable = {name: each for name, each in quotas.items() if name in sources}
    taken = fill_quotas(range(len(sources)), sources, budget, usable)
    assert len(taken) == min(budget, len(sources))
    for name, quota in usable.items():
        num_taken = sum(sources[row] == name for row in taken)
        assert num_taken >= min(math.floor(quota.min_share * budget), sources.count(name))


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=40),
    st.integers(1, 40),
    st.floats(0, 0.5),
    st.floats(0, 1),
)
def test_quotas_are_kept_and_nothing_better_is_left_without_need(
    sources: list[str], budget: int, least: float, most: float
) -> None:
    quotas = {"a": Quota(least, 1.0), "b": Quota(0.0, most)}
    taken = fill_quotas(range(len(sources)), sources, budget, quotas)
    assert taken == sorted(set(taken))
    assert len(taken) <= budget
    by_source = {name: [row for row in taken if sources[row] == name] for name in "abc"}
    assert len(by_source["b"]) <= most * budget + 1e-6
    assert len(by_source["a"]) >= min(math.ceil(least * budget - 1e-9), sources.count("a"))
    for name, rows in by_source.items():  # of each source the best ones
        assert rows == [row for row, source in enumerate(sources) if source == name][: len(rows)]
    left_out = [row for row in range(len(sources)) if row not in taken and sources[row] != "b"]
    assert not left_out or len(taken) == budget


def test_a_queue_that_a_maximum_keeps_short_says_so() -> None:
    prompts = [prompt(name, 2) for name in "abc"]
    quotas = {"web": Quota(max_share=0.5)}
    queue = make_queue(prompts, matrix([[1, 0]] * 3), measure="pvar", budget=2, quotas=quotas)
    assert queue.row_counts.rejected == {"over_quota": 2}


@pytest.mark.parametrize(
    ("quotas", "error", "message"),
    [
        ({"b": Quota()}, InputError, "names the source 'b', but the sources .* are a, web"),
        ({"a": Quota(0.6, 0.5)}, ConfigError, "quota of a is 0.6 to 0.5"),
        ({"a": Quota(0.6), "web": Quota(0.5)}, ConfigError, "minimum shares add up to 1.1"),
    ],
)
def test_quotas_that_cannot_be_kept_are_refused(
    quotas: dict[str, Quota], error: type[Exception], message: str
) -> None:
    prompts = [prompt("p", 2, "a"), prompt("q", 2)]
    with pytest.raises(error, match=message):
        make_queue(prompts, matrix([[1, 0]] * 2), measure="pvar", budget=1, quotas=quotas)
