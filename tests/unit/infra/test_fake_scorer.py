"""The fake reward model: stable, spread out, and failing as often as it is told to."""

from math import isnan

import pytest

from infra.rewards.fake_scorer import FakeScorer
from pvar.ports import ScoreRequest


def requests(num: int) -> list[ScoreRequest]:
    return [ScoreRequest(f"p{i}", f"r{i}", (), f"text {i}") for i in range(num)]


def rewards(scorer: FakeScorer, num: int) -> list[float | None]:
    return [score.reward for score in scorer.score(requests(num))]


def test_the_reward_is_a_fixed_function_of_name_and_text() -> None:
    # printf '["fake","reward","text 0"]' | sha256sum → 5a84ff5ba2c59dbb…; 13 digits are 52 bits.
    [score] = FakeScorer("fake").score(requests(1))

    assert score.reward == pytest.approx(4 * 0x5A84FF5BA2C59 / 2**52 - 2, abs=1e-12)


def test_a_score_does_not_depend_on_its_neighbours_or_ids() -> None:
    scorer = FakeScorer("fake")
    together = scorer.score(requests(5))

    assert [scorer.score([row])[0] for row in requests(5)] == together
    assert scorer.score([ScoreRequest("x", "y", (), "text 3")])[0].reward == together[3].reward


def test_rewards_fill_the_range_from_minus_2_to_2() -> None:
    drawn = [reward for reward in rewards(FakeScorer("fake"), 1000) if reward is not None]

    assert len(drawn) == 1000
    assert all(-2 <= reward < 2 for reward in drawn)
    # Uniform: mean 0 with standard error (4/√12)/√1000 = 0.037; 4 of them are 0.15.
    assert abs(sum(drawn) / 1000) < 0.15
    assert min(drawn) < -1.9
    assert max(drawn) > 1.9


def test_scorers_of_different_names_disagree() -> None:
    assert rewards(FakeScorer("a"), 20) != rewards(FakeScorer("b"), 20)


def test_the_asked_shares_are_missing_with_a_reason_and_nan() -> None:
    scores = FakeScorer("fake", missing_share=0.2, nan_share=0.1).score(requests(1000))

    missing = [score for score in scores if score.reward is None]
    nans = [score for score in scores if score.reward is not None and isnan(score.reward)]
    # Binomial standard deviations: √(1000·0.2·0.8) = 12.6 and √(1000·0.1·0.9) = 9.5; 4 of each.
    assert 150 <= len(missing) <= 250
    assert 62 <= len(nans) <= 138
    assert {score.reason for score in missing} == {"fake_failure"}


def test_failures_do_not_change_the_rewards_of_the_others() -> None:
    whole = rewards(FakeScorer("fake"), 100)
    partly = rewards(FakeScorer("fake", missing_share=0.3), 100)

    kept = [i for i, reward in enumerate(partly) if reward is not None]
    assert 0 < len(kept) < 100
    assert [partly[i] for i in kept] == [whole[i] for i in kept]


def test_a_missing_share_of_one_leaves_nothing() -> None:
    assert rewards(FakeScorer("fake", missing_share=1.0), 50) == [None] * 50
