"""Held-out pairs: of which prompts they are, who shares them, and what depends on them."""

import json
from pathlib import Path
from typing import Any

import pytest

from pvar.config import PipelineConfig
from pvar.records import Pair, Prompt, Response, Score
from tasks.engine.tables import PromptVariance, by_prompt
from tasks.graph import plan_nodes
from tasks.stages.ingest import PROMPTS
from tasks.stages.pair import PAIRS
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES
from tasks.stages.select import VARIANCE
from tests.workflow import start_workflow, write_prompts

NODES = ["held-out-sample", "held-out-score-vader", "held-out-select", "held-out-pair"]


def test_they_are_the_best_and_the_worst_response_to_each_held_out_prompt(tmp_path: Path) -> None:
    source = write_prompts(tmp_path / "prompts.jsonl")
    with source.open("a") as file:
        file.write(json.dumps({"prompt": "What is two and two?", "answer": "4"}) + "\n")
    flow = start_workflow(
        tmp_path / "home", **{"ingest.source": str(source), "evaluate.margins": True}
    )
    flow.make("ingest", *NODES)

    prompts = flow.artifact("ingest").rows(PROMPTS, Prompt)
    held_out = {row.prompt_id for row in prompts if row.split == "eval" and not row.is_question}
    responses = by_prompt(flow.artifact("held-out-sample").rows(RESPONSES, Response))
    scores = flow.artifact("held-out-score-vader").rows(SCORES, Score)
    rewards = {row.response_id: row.reward for row in scores}
    pairs = flow.artifact("held-out-pair").rows(PAIRS, Pair)
    assert 0 < len(pairs) <= len(held_out)
    assert {pair.prompt_id for pair in pairs} <= held_out
    for pair in pairs:
        given = responses[pair.prompt_id]
        assert len(given) == 4
        usable = [rewards[row.response_id] for row in given if row.finish_reason == "stop"]
        known = [reward for reward in usable if reward is not None]
        assert (pair.chosen_reward, pair.rejected_reward) == (max(known), min(known))
    measured = flow.artifact("held-out-select").rows(VARIANCE, PromptVariance)
    assert {row.prompt_id for row in measured} == held_out
    assert all(row.pvar is not None for row in measured if row.num_responses > 1)


def config(**changes: Any) -> PipelineConfig:
    tree: dict[str, Any] = {
        "policy": "/p#p",
        "ingest": {"source": "/s#s"},
        "score": {"reward_models": [{"kind": "vader"}, {"kind": "fake", "name": "small"}]},
        "pair": {"models": ["vader"]},
        "evaluate": {"opponent": "/p#p", "margins": True},
    }
    for key, value in changes.items():
        part, name = key.split("__")
        tree[part] = {**tree.get(part, {}), name: value}
    return PipelineConfig.model_validate(tree)


@pytest.mark.parametrize(
    "changes",
    [
        {"select__strategy": "random", "select__seed": 7},
        {"select__budget": {"count": 3}, "select__models": ["small"]},
        {"pair__rule": "best_random", "pair__pairs_per_prompt": 3, "pair__min_margin": 0.1},
        {"sample__seed": 5, "sample__adaptive": {"first_responses": 2}},
        {"train__beta": 0.5, "train__seed": 3},
    ],
)
def test_whatever_selects_and_trains_the_pairs_are_the_same(changes: dict[str, Any]) -> None:
    before, after = plan_nodes(config()), plan_nodes(config(**changes))
    assert [before[name].keys for name in NODES] == [after[name].keys for name in NODES]
    assert after["train"].keys != before["train"].keys


def test_only_the_training_and_what_follows_it_depend_on_the_pairs() -> None:
    nodes = plan_nodes(config())
    plain = plan_nodes(config(evaluate__margins=False))
    assert [name for name in nodes if name not in plain] == NODES
    changed = [name for name, node in plain.items() if node.keys != nodes[name].keys]
    assert changed == ["train", "answers-challenger", "evaluate", "promote"]
    assert nodes["train"].inputs == {
        **plain["train"].inputs,
        "held_out_pairs": nodes["held-out-pair"].keys,
        "held_out_responses": nodes["held-out-sample"].keys,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"sample__engine": "dataset"},
        {"pair__rule": "original", "pair__models": None, "select__models": None},
    ],
)
def test_margins_need_responses_and_labels(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"set evaluate\.margins to false"):
        config(**changes)
    config(**changes, evaluate__margins=False)
