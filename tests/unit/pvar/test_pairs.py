import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.errors import ConfigError, InputError
from pvar.pairs import RULES, Annotation, make_pairs
from pvar.records import Message, Prompt, Response, Score
from pvar.row_counts import RowCounts

QUESTION = (Message("user", "How are you?"),)


def prompt(prompt_id="p", chosen=None, rejected=None) -> Prompt:
    return Prompt(prompt_id, QUESTION, "train", "test", chosen, rejected)


def response(index, text=None, prompt_id="p", finish_reason="stop") -> Response:
    text = f"answer {index}" if text is None else text
    return Response(prompt_id, f"{prompt_id}-r{index:02d}", index, text, 3, finish_reason)


def scored(rewards, prompt_id="p"):
    """Responses "answer 0", "answer 1", … with these rewards."""
    responses = [response(index, prompt_id=prompt_id) for index in range(len(rewards))]
    scores = [
        Score(prompt_id, each.response_id, reward)
        for each, reward in zip(responses, rewards, strict=True)
    ]
    return responses, scores


def texts(pairing):
    return [(pair.chosen, pair.rejected) for pair in pairing.pairs]


def test_best_against_worst_carries_texts_rewards_and_the_prompt():
    (pair,) = make_pairs([prompt()], *scored([0.5, 2.0, -1.0]), "best_worst", seed=0).pairs
    assert pair == ("p", QUESTION, "answer 1", "answer 2", 2.0, -1.0)


def test_several_best_worst_pairs_go_inwards_and_use_no_answer_twice():
    # Ascending rewards 0 … 4: (4, 0), (3, 1); the third pair has no two answers left.
    pairing = make_pairs(
        [prompt()], *scored([0, 1, 2, 3, 4]), "best_worst", seed=0, pairs_per_prompt=3
    )
    assert texts(pairing) == [("answer 4", "answer 0"), ("answer 3", "answer 1")]
    assert pairing.row_counts == RowCounts(rows_in=3, rows_out=2, rejected={"too_few_answers": 1})


def test_best_random_draws_every_other_answer_and_never_the_best():
    drawn = [
        texts(make_pairs([prompt()], *scored([0, 1, 2, 9]), "best_random", seed=seed))[0]
        for seed in range(50)
    ]
    assert {chosen for chosen, _ in drawn} == {"answer 3"}
    assert {rejected for _, rejected in drawn} == {"answer 0", "answer 1", "answer 2"}


def test_several_random_pairs_have_different_rejected_answers():
    pairing = make_pairs(
        [prompt()], *scored([0, 1, 2, 9]), "best_random", seed=0, pairs_per_prompt=3
    )
    assert sorted(rejected for _, rejected in texts(pairing)) == [
        "answer 0",
        "answer 1",
        "answer 2",
    ]


def test_the_rejected_answer_nearest_to_mu_minus_2_sigma_is_not_the_worst():
    # Rewards −10, −4, then eighteen of 0 … 17 · 0.1. Sum −14 + 15.3 = 1.3, μ = 0.065.
    # Sum of squares 116 + 17.85 = 133.85, σ² = 6.6925 − 0.004225 = 6.688275, σ = 2.586170.
    # μ − 2σ = −5.107: −4 is 1.107 away, −10 is 4.893 away.
    rewards = [-10.0, -4.0, *(0.1 * step for step in range(18))]
    pairing = make_pairs([prompt()], *scored(rewards), "max_mu_minus_2sigma", seed=0)
    assert texts(pairing) == [("answer 19", "answer 1")]


def test_five_answers_are_too_few_for_mu_minus_2_sigma_to_differ_from_the_worst():
    noise = random.Random(0)
    for _ in range(200):
        rewards = [noise.lognormvariate(0, 2) for _ in range(5)]
        target = make_pairs([prompt()], *scored(rewards), "max_mu_minus_2sigma", seed=0)
        assert target.pairs == make_pairs([prompt()], *scored(rewards), "best_worst", seed=0).pairs


def test_the_seed_decides_something_for_exactly_the_rules_that_say_so():
    rewards = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    made = {
        (rule, seed): make_pairs([prompt()], *scored(rewards), rule, seed=seed).pairs
        for rule in RULES
        for seed in range(5)
    }
    assert {rule for rule, seed in made if made[rule, seed] != made[rule, 0]} == {
        name for name, rule in RULES.items() if rule.draws
    }


def test_a_pair_of_equal_rewards_is_a_tie_not_a_pair():
    for rule in RULES:
        pairing = make_pairs([prompt()], *scored([1.0, 1.0, 1.0]), rule, seed=0)
        assert pairing.pairs == []
        assert pairing.row_counts == RowCounts(rows_in=1, rows_out=0, rejected={"tie": 1})


def test_the_margin_is_the_least_difference_that_stays():
    pairing = make_pairs([prompt()], *scored([0.0, 0.5]), "best_worst", seed=0, min_margin=0.5)
    assert len(pairing.pairs) == 1
    pairing = make_pairs([prompt()], *scored([0.0, 0.49]), "best_worst", seed=0, min_margin=0.5)
    assert pairing.row_counts.rejected == {"margin": 1}


def test_every_unusable_response_is_left_out_by_a_named_rule():
    responses = [
        response(0, "good"),
        response(1, "bad"),
        response(2, "cut off", finish_reason="length"),
        response(3, " \n"),
        response(4, "bad\n"),  # response 1 again, but for white space
        response(5, "no score at all"),
        response(6, "score is missing"),
        response(7, "score is NaN"),
        response(8, "score is infinite"),
        response(9, "", finish_reason="error"),
        response(0, "of another prompt", prompt_id="q"),
    ]
    rewards = [1.0, -1.0, 99.0, 99.0, -99.0, None, None, float("nan"), float("inf"), 99.0, 99.0]
    scores = [
        Score(each.prompt_id, each.response_id, reward)
        for each, reward in zip(responses, rewards, strict=True)
        if each.sample_index != 5
    ]
    pairing = make_pairs([prompt()], responses, scores, "best_worst", seed=0)
    assert texts(pairing) == [("good", "bad")]
    assert pairing.responses == RowCounts(
        rows_in=11,
        rows_out=2,
        rejected={
            "truncated": 1,
            "empty": 1,
            "duplicate_text": 1,
            "missing_reward": 4,
            "failed": 1,
            "other_prompt": 1,
        },
    )


def test_of_equal_texts_the_earliest_sample_stays_whatever_the_order():
    responses = [response(0, "good"), response(1, "bad"), response(2, "bad")]
    rewards = [1.0, 0.0, 1e-7]  # equal texts, but for the noise of a batch
    scores = [
        Score("p", each.response_id, reward)
        for each, reward in zip(responses, rewards, strict=True)
    ]
    for order in (responses, responses[::-1]):
        (pair,) = make_pairs([prompt()], order, scores, "best_worst", seed=0).pairs
        assert pair.rejected_reward == 0.0


def test_truncated_answers_can_be_kept():
    responses = [response(0, finish_reason="length"), response(1, finish_reason="length")]
    scores = [Score("p", "p-r00", 1.0), Score("p", "p-r01", 0.0)]
    pairing = make_pairs([prompt()], responses, scores, "best_worst", seed=0, keep_truncated=True)
    assert texts(pairing) == [("answer 0", "answer 1")]


def test_a_prompt_without_two_answers_is_accounted_for():
    pairing = make_pairs([prompt("p"), prompt("q")], *scored([1.0]), "best_worst", seed=0)
    assert pairing.row_counts == RowCounts(rows_in=2, rows_out=0, rejected={"too_few_answers": 2})


def test_no_prompts_make_no_pairs():
    assert make_pairs([], [], [], "best_worst", seed=0).row_counts == RowCounts()


def test_scores_are_joined_by_id_not_by_position():
    responses, scores = scored([3.0, 1.0, 2.0])
    others, other_scores = scored([1.0, 5.0], prompt_id="q")
    mixed = [*others, *responses], [*scores[::-1], *other_scores]
    pairing = make_pairs([prompt("q"), prompt("p")], *mixed, "best_worst", seed=0)
    assert texts(pairing) == [("answer 1", "answer 0"), ("answer 0", "answer 1")]
    assert [pair.prompt_id for pair in pairing.pairs] == ["q", "p"]


REWARDS = st.lists(
    st.sampled_from([None, float("nan"), -1.0, 0.0, 0.5, 0.5000001, 2.0]), max_size=8
)


@given(
    st.lists(REWARDS, max_size=5),
    st.sampled_from(sorted(RULES)),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_any_order_of_rows_makes_the_same_pairs_and_none_is_degenerate(
    rewards_by_prompt, rule, pairs_per_prompt, shuffler
):
    prompts = [prompt(f"p{number}") for number in range(len(rewards_by_prompt))]
    responses, scores = [], []
    for each, rewards in zip(prompts, rewards_by_prompt, strict=True):
        more_responses, more_scores = scored(rewards, each.prompt_id)
        responses += more_responses
        scores += more_scores

    def made():
        return make_pairs(
            prompts, responses, scores, rule, seed=1, pairs_per_prompt=pairs_per_prompt
        )

    first = made()
    shuffler.shuffle(responses)
    shuffler.shuffle(scores)
    assert made() == first
    assert all(pair.chosen != pair.rejected for pair in first.pairs)
    assert all(pair.chosen_reward > pair.rejected_reward for pair in first.pairs)
    assert first.row_counts.rows_in == len(prompts) * pairs_per_prompt
    assert first.row_counts.rows_out == len(first.pairs)
    assert first.responses.rows_in == len(responses)


def test_ids_that_come_twice_are_errors():
    responses, scores = scored([1.0, 0.0])
    with pytest.raises(InputError, match="prompt id p occurs 2 times"):
        make_pairs([prompt(), prompt()], responses, scores, "best_worst", seed=0)
    with pytest.raises(InputError, match="duplicate response id p-r00"):
        make_pairs([prompt()], [*responses, responses[0]], scores, "best_worst", seed=0)
    with pytest.raises(InputError, match="p-r01 has two scores"):
        make_pairs([prompt()], responses, [*scores, scores[1]], "best_worst", seed=0)


def original(prompts, **options):
    return make_pairs(prompts, [], [], "original", seed=0, **options)


def test_original_pairs_are_the_annotators_own_and_carry_no_reward():
    (pair,) = original([prompt(chosen="yes", rejected="no")]).pairs
    assert (pair.chosen, pair.rejected) == ("yes", "no")
    assert (pair.chosen_reward, pair.rejected_reward) == (None, None)


def test_original_pairs_that_cannot_be_trained_on_are_left_out_by_name():
    pairing = original(
        [
            prompt("a", "same ", " same"),
            prompt("b", "only chosen", None),
            prompt("c", "something", "  "),
            prompt("d", "yes", "no"),
        ]
    )
    assert [pair.prompt_id for pair in pairing.pairs] == ["d"]
    assert pairing.row_counts == RowCounts(
        rows_in=4, rows_out=1, rejected={"tie": 1, "no_annotation": 1, "empty": 1}
    )


def test_the_worst_answers_that_ultrafeedback_scored_ten_are_not_chosen():
    # The bug reads "1" as 10, while the aspects (1 to 5) say what the annotator meant.
    prompts = [prompt(name, "chosen", "rejected") for name in "abcde"]
    annotations = [
        Annotation("a", 10.0, 7.0, (1.0, 1.0, 2.0, 1.0)),  # a 1 read as 10
        Annotation("b", 10.0, 7.0, (4.0, 4.0, 4.0, 4.0)),  # doubtful: its authors asked again
        Annotation("c", 10.0, 7.0, (5.0, 5.0, 5.0, 4.0)),  # a true 10
        Annotation("d", 10.0, 7.0),  # nothing to check it by
        Annotation("e", 8.5, 7.0, (1.0, 1.0, 1.0, 1.0)),  # the bug makes tens only
    ]
    pairing = original(prompts, annotations=annotations)
    assert [pair.prompt_id for pair in pairing.pairs] == ["c", "e"]
    assert pairing.row_counts.rejected == {"overall_score_bug": 2, "overall_score_unchecked": 1}


def test_annotated_scores_make_ties_and_margins():
    prompts = [prompt(name, "chosen", "rejected") for name in "abcd"]
    annotations = [
        Annotation("a", 8.0, 8.0),
        Annotation("b", 8.0, 7.5),
        Annotation("c", 8.0, 7.0),
    ]
    pairing = original(prompts, annotations=annotations, min_margin=1.0)
    assert [pair.prompt_id for pair in pairing.pairs] == ["c"]
    assert pairing.row_counts.rejected == {"tie": 1, "margin": 1, "missing_reward": 1}


def test_a_prompt_has_one_original_pair():
    with pytest.raises(ConfigError, match="pairs_per_prompt is 2"):
        original([prompt(chosen="yes", rejected="no")], pairs_per_prompt=2)
