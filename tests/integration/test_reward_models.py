"""Reward models in the workflow: a classifier from a folder, alone and beside a lexicon.

The oracle of its scores is transformers' own classifier, one text at a time (as in
`tests/unit/infra/test_classifier.py`); the oracle of PVar is its definition, in two loops.
"""

import math
from itertools import permutations
from pathlib import Path

import pytest
import torch

from pvar.errors import ScoringError
from pvar.ports import ScoreRequest
from pvar.records import Prompt, Response, Score
from tasks.engine.tables import MeasuredPrompt, PromptVariance
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tasks.stages.select import MEASURED, VARIANCE
from tests.unit.infra.test_classifier import oracle
from tests.unit.infra.tiny_models import change_weights, save_classifier
from tests.workflow import Workflow, start_workflow

pytestmark = pytest.mark.slow

VADER = {"kind": "vader"}


def classifier(folder: Path) -> dict[str, str]:
    """In the oracle's number format, on any machine."""
    return {"kind": "classifier", "name": "tiny", "model": str(folder), "dtype": "float32"}


def start(home: Path, *reward_models: dict[str, str]) -> Workflow:
    return start_workflow(home, **{"score.reward_models": list(reward_models)})


def test_a_classifier_scores_every_response_and_decides_the_selection(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "reward", seed=3)
    workflow = start(tmp_path / "home", classifier(folder))
    workflow.make("ingest", "sample", "score-tiny", "select")

    prompts = {each.prompt_id: each for each in workflow.artifact("ingest").rows(PROMPTS, Prompt)}
    responses = workflow.artifact("sample").rows(RESPONSES, Response)
    scores = {
        each.response_id: each.reward
        for each in workflow.artifact("score-tiny").rows(SCORES, Score)
    }
    assert set(scores) == {each.response_id for each in responses}
    requests = [
        ScoreRequest(each.prompt_id, each.response_id, prompts[each.prompt_id].messages, each.text)
        for each in responses
    ]
    expected = oracle(folder, requests)
    assert [scores[each.response_id] for each in responses] == pytest.approx(expected, abs=1e-5)

    for row in workflow.artifact("select").rows(VARIANCE, PromptVariance):
        rewards = [
            scores[each.response_id]
            for each in responses
            if each.prompt_id == row.prompt_id and each.finish_reason == "stop"
        ]
        assert row.num_responses == len(rewards)
        if len(rewards) >= 2:
            squares = [(1 / (1 + math.exp(b - a)) - 0.5) ** 2 for a, b in permutations(rewards, 2)]
            assert row.pvar == pytest.approx(sum(squares) / len(squares), rel=1e-6)


def test_adding_a_reward_model_does_not_score_the_others_again(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "reward", seed=3)
    alone = start(tmp_path / "home", VADER)
    alone.make("ingest", "sample", "score-vader", "select")
    both = start(tmp_path / "home", VADER, classifier(folder))

    assert both.make("ingest", "sample", "score-vader").reused
    assert not both.make("score-tiny", "select").reused
    rows = both.artifact("select").rows(MEASURED, MeasuredPrompt)
    assert any(row.measure == "disagreement" and row.value > 0 for row in rows)


def test_other_weights_in_the_same_folder_are_another_artifact(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "reward", seed=3)
    before = start(tmp_path / "home", classifier(folder)).nodes["score-tiny"].keys
    save_classifier(tmp_path / "reward", seed=4)
    after = start(tmp_path / "home", classifier(folder)).nodes["score-tiny"].keys
    assert before.digest != after.digest


def test_a_reward_model_that_gives_nan_is_an_error_not_a_score(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "reward", seed=3)
    change_weights(folder, score__weight=torch.full((1, 32), torch.nan))
    workflow = start(tmp_path / "home", classifier(folder))
    workflow.make("ingest", "sample")
    with pytest.raises(ScoringError, match=r"(?i)nan"):
        workflow.make("score-tiny")
