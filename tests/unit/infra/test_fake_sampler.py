"""The fake policy: reproducible answers, of which some prompts get more varied ones than others."""

import statistics

import pytest

from infra.engines.fake_sampler import FakeSampler
from infra.judges.lexicon_judge import LexiconJudge
from infra.rewards.vader import VaderScorer
from pvar.digest import response_id
from pvar.ports import Rejection, SampleRequest, ScoreRequest
from pvar.records import Comparison, Message, Response

SAMPLER = FakeSampler(max_prompt_tokens=100, max_new_tokens=30)


def requests(num: int) -> list[SampleRequest]:
    return [SampleRequest(f"p{i}", (Message("user", f"Prompt {i}"),)) for i in range(num)]


def answers(sampler: FakeSampler, num: int, *, num_responses: int, seed: int) -> list[Response]:
    responses, rejections = sampler.sample(requests(num), num_responses=num_responses, seed=seed)
    assert rejections == []
    return responses


def test_each_prompt_is_answered_as_often_as_asked_with_valid_ids() -> None:
    responses = answers(SAMPLER, 3, num_responses=4, seed=0)

    assert [(r.prompt_id, r.sample_index) for r in responses] == [
        (f"p{i}", k) for i in range(3) for k in range(4)
    ]
    for r in responses:
        assert r.response_id == response_id(r.prompt_id, r.sample_index, r.text)


def test_an_answer_depends_on_prompt_seed_and_index_only() -> None:
    whole = answers(SAMPLER, 6, num_responses=4, seed=7)

    reverse, _ = SAMPLER.sample(requests(6)[::-1], num_responses=2, seed=7)

    assert set(reverse) == {r for r in whole if r.sample_index < 2}


def test_seeds_and_sample_indices_give_different_answers() -> None:
    first = [r.text for r in answers(SAMPLER, 5, num_responses=4, seed=0)]
    second = [r.text for r in answers(SAMPLER, 5, num_responses=4, seed=1)]

    assert len(set(first)) == 20
    assert not set(first) & set(second)


def test_complete_answers_count_their_words_and_the_end_token_within_the_limit() -> None:
    for r in answers(SAMPLER, 20, num_responses=5, seed=0):
        assert r.finish_reason == "stop"
        assert r.num_tokens == len(r.text.split()) + 1
        assert 2 <= r.num_tokens <= 30


def test_the_asked_shares_are_truncated_at_the_limit_and_empty() -> None:
    sampler = FakeSampler(
        max_prompt_tokens=100, max_new_tokens=30, truncated_share=0.3, empty_share=0.1
    )

    responses = answers(sampler, 100, num_responses=10, seed=0)

    truncated = [r for r in responses if r.finish_reason == "length"]
    empty = [r for r in responses if r.text == ""]
    # Binomial standard deviations: √(1000·0.3·0.7) = 14.5 and √(1000·0.1·0.9) = 9.5; 4 of each.
    assert 242 <= len(truncated) <= 358
    assert 62 <= len(empty) <= 138
    assert all(r.num_tokens == len(r.text.split()) == 30 for r in truncated)
    assert all((r.num_tokens, r.finish_reason) == (1, "stop") for r in empty)


def test_a_prompt_over_the_limit_rejects_only_itself() -> None:
    sampler = FakeSampler(max_prompt_tokens=5, max_new_tokens=10)
    system = Message("system", "one two")
    fits = SampleRequest("fits", (system, Message("user", "three four five")))
    long = SampleRequest("long", (system, Message("user", "three four five six")))

    responses, rejections = sampler.sample([fits, long, fits], num_responses=2, seed=0)

    assert rejections == [Rejection("long", "prompt_too_long")]
    assert [r.prompt_id for r in responses] == ["fits"] * 4


def test_rewards_vary_within_some_prompts_much_more_than_within_others() -> None:
    responses = answers(SAMPLER, 40, num_responses=8, seed=0)
    scores = VaderScorer(scale=1.0).score(
        [ScoreRequest(r.prompt_id, r.response_id, (), r.text) for r in responses]
    )

    rewards = [score.reward for score in scores if score.reward is not None]
    spreads = sorted(statistics.pstdev(rewards[i : i + 8]) for i in range(0, 320, 8))

    assert len(rewards) == 320
    # Compound lies in [−1, 1], so 1 is the largest deviation. Ten of the 40 prompts have a spread
    # below (¼)² = 0.06, about one charged word in 30; ten above (¾)² = 0.56, several per answer.
    assert spreads[10] < 0.6 * spreads[30]
    assert spreads[-1] > 0.7


def test_the_judge_sees_the_same_tone_as_the_reward() -> None:
    responses = answers(SAMPLER, 40, num_responses=2, seed=0)
    rewards = [
        score.reward
        for score in VaderScorer(scale=1.0).score(
            [ScoreRequest(r.prompt_id, r.response_id, (), r.text) for r in responses]
        )
    ]
    verdicts = LexiconJudge().judge(
        [
            Comparison(a.prompt_id, (), a.text, b.text)
            for a, b in zip(responses[::2], responses[1::2], strict=True)
        ]
    )

    agreeing = [
        float(second > first) == verdict.preference
        for first, second, verdict in zip(rewards[::2], rewards[1::2], verdicts, strict=True)
        if first is not None and second is not None and abs(second - first) > 0.5
    ]

    assert len(agreeing) >= 10
    assert statistics.mean(agreeing) == pytest.approx(1.0, abs=0.1)
