"""Stage score: every response is scored once, under its own prompt, and a failure is not a zero."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pvar.errors import ScoringError
from pvar.ports import ScoreRequest
from pvar.records import Message, Prompt, Response, Score
from pvar.reward_config import FakeReward
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORE, SCORES, ScoreSpec
from tests.artifacts import StageBench
from tests.workflow import open_wiring

Reward = Callable[[ScoreRequest], float | None]


@dataclass
class RuleScorer:
    """A reward model by a rule; it remembers what it was asked."""

    rule: Reward
    asked: list[ScoreRequest] = field(default_factory=list)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        self.asked += requests
        return [Score(each.prompt_id, each.response_id, self.rule(each)) for each in requests]

    def close(self) -> None:
        pass


def score(folder: Path, scorer: RuleScorer) -> Artifact:
    """Scores of 3 answers to each of 3 prompts: shards of 4, 4 and 1 rows cut prompts in two."""
    bench = StageBench(open_wiring(folder), folder)
    prompts = [
        Prompt(f"p{n}", (Message("user", f"Question {n}?"),), "train", "x") for n in (0, 2, 1)
    ]
    responses = [
        Response(f"p{n}", f"r{n}{i}", i, f"answer {n}.{i}", 3, "stop")
        for n in range(3)
        for i in range(3)
    ]
    inputs = {
        "prompts": bench.put("ingest", PROMPTS, prompts, Prompt),
        "responses": bench.put("sample", RESPONSES, responses, Response),
    }
    spec = ScoreSpec(reward_model=FakeReward())
    return bench.run(SCORE, spec, inputs, scorer=lambda *_: scorer)


def test_every_response_is_scored_once_under_its_own_prompt(tmp_path: Path) -> None:
    scorer = RuleScorer(lambda each: float(each.response_id[1:]))
    rows = score(tmp_path, scorer).rows(SCORES, Score)
    assert sorted(scorer.asked) == [
        ScoreRequest(
            f"p{n}", f"r{n}{i}", (Message("user", f"Question {n}?"),), f"answer {n}.{i}", ()
        )
        for n in range(3)
        for i in range(3)
    ]
    assert rows == [Score(f"p{n}", f"r{n}{i}", 10 * n + i) for n in range(3) for i in range(3)]


def test_what_has_no_reward_or_no_finite_one_is_missing_and_counted(tmp_path: Path) -> None:
    given = {"r00": None, "r11": math.nan, "r22": -math.inf}
    artifact = score(tmp_path, RuleScorer(lambda each: given.get(each.response_id, 1.5)))
    rewards = {row.response_id: row.reward for row in artifact.rows(SCORES, Score)}
    assert {name for name, reward in rewards.items() if reward is None} == set(given)
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=9, rows_out=6, rejected={"missing": 1, "not_finite": 2}
    )
    # Zeros in their place would make the mean 6 · 1.5 / 9.
    assert artifact.manifest.summary["reward_mean"] == 1.5


def test_a_model_that_rewards_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ScoringError, match=r"no reward for any of 9 responses \(\{'missing': 9\}\)"
    ):
        score(tmp_path, RuleScorer(lambda _: None))


def test_the_advice_is_for_the_reason_that_took_the_rewards(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"overflows.*dtype float32"):
        score(tmp_path, RuleScorer(lambda _: math.nan))


def test_where_nothing_was_rewarded_the_next_run_scores_again(tmp_path: Path) -> None:
    with pytest.raises(ScoringError):
        score(tmp_path, RuleScorer(lambda _: None))
    assert score(tmp_path, RuleScorer(lambda _: 1.5)).manifest.row_counts.rows_out == 9
