"""A reward model as judge: σ of the reward difference, and no verdict without both rewards."""

import math
from collections.abc import Mapping, Sequence

import pytest

from infra.judges.reward_model_judge import RewardPairJudge
from pvar.digest import canonical_json
from pvar.ports import ScoreRequest
from pvar.records import Comparison, Message, Score

QUESTION = (Message("user", "Why?"),)


class TableScorer:
    """Rewards by text; it counts what it was asked, and its answers are in no other order."""

    def __init__(self, rewards: Mapping[str, float | None]) -> None:
        self.rewards = rewards
        self.asked: list[str] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.asked += [request.response for request in requests]
        return [self._score(request) for request in requests]

    def close(self) -> None:
        """Nothing to free."""

    def _score(self, request: ScoreRequest) -> Score:
        reward = self.rewards[request.response]
        reason = "too_long" if reward is None else None
        return Score(request.prompt_id, request.response_id, reward, reason)


def judge(rewards: Mapping[str, float | None], scale: float = 1.0) -> RewardPairJudge:
    return RewardPairJudge(TableScorer(rewards), {"kind": "classifier", "model": "m#1"}, scale)


def preference(first: float, second: float, scale: float = 1.0) -> float | None:
    [verdict] = judge({"a": first, "b": second}, scale).judge([Comparison("p", QUESTION, "a", "b")])
    return verdict.preference


@pytest.mark.parametrize(
    ("first", "second", "scale", "expected"),
    [
        (1.0, 1.0, 1.0, 0.5),
        (0.0, math.log(3), 1.0, 0.75),  # σ(ln 3) = 3/(1 + 3)
        (math.log(3), 0.0, 1.0, 0.25),
        (0.0, 2 * math.log(9), 2.0, 0.9),  # σ(ln 9) = 9/10
        (-5000.0, 5000.0, 1.0, 1.0),  # no overflow
    ],
)
def test_the_preference_is_the_sigmoid_of_the_scaled_difference(
    first: float, second: float, scale: float, expected: float
) -> None:
    assert preference(first, second, scale) == pytest.approx(expected, abs=1e-15)


def test_verdicts_keep_the_order_and_every_text_is_scored_once() -> None:
    judging = judge({"a": 0.0, "b": math.log(3)})
    rows = [Comparison("p", QUESTION, "a", "b"), Comparison("p", QUESTION, "b", "a")]

    verdicts = judging.judge(rows)

    assert [v.preference for v in verdicts] == [pytest.approx(0.75), pytest.approx(0.25)]
    assert isinstance(judging.scorer, TableScorer)
    assert sorted(judging.scorer.asked) == ["a", "b"]


def test_the_same_text_under_two_prompts_is_scored_for_each() -> None:
    judging = judge({"a": 0.0, "b": 1.0})
    other = (Message("user", "How?"),)

    judging.judge([Comparison("p", QUESTION, "a", "b"), Comparison("q", other, "a", "b")])

    assert isinstance(judging.scorer, TableScorer)
    assert sorted(judging.scorer.asked) == ["a", "a", "b", "b"]


@pytest.mark.parametrize(("first", "second"), [("none", "a"), ("a", "none")])
def test_a_missing_reward_is_a_missing_verdict_with_the_scorers_reason(
    first: str, second: str
) -> None:
    [verdict] = judge({"a": 1.0, "none": None}).judge([Comparison("p", QUESTION, first, second)])

    assert verdict == ("p", None, "too_long")


@pytest.mark.parametrize(("first", "second"), [(math.nan, 1.0), (math.inf, math.inf)])
def test_rewards_that_give_no_number_are_a_missing_verdict(first: float, second: float) -> None:
    [verdict] = judge({"a": first, "b": second}).judge([Comparison("p", QUESTION, "a", "b")])

    assert verdict == ("p", None, "reward_not_a_number")


def test_the_identity_names_the_reward_model_and_the_scale() -> None:
    identity = judge({}, scale=2.0).identity

    assert canonical_json(identity)
    assert identity == {
        "kind": "reward_model",
        "reward_model": "classifier",
        "model": "m#1",
        "preference_scale": 2.0,
    }
