"""Which comparisons are planned, and what they do not change."""

from typing import Any

import pytest
from pydantic import ValidationError

from pvar.config import PipelineConfig
from pvar.references import replace_references
from tasks.engine.node import Node
from tasks.graph import plan_nodes, reward_keys

RESERVE = ["reserve.jsonl"]
AUDIT = ["reserve-answers", "reserve-answers-first", "reserve-evaluate"]


def pinned(**settings: Any) -> PipelineConfig:
    tree = {"policy": "champion", "policy_if_none": "org/first", **settings}
    config = PipelineConfig.model_validate(tree)
    return replace_references(config, lambda each: f"{each.text}#sha256-{each.text}")


def planned(**evaluate: Any) -> dict[str, Node]:
    return plan_nodes(pinned(evaluate=evaluate))


def test_a_reserve_exam_is_left_out_of_training_and_no_model_is_asked() -> None:
    plain, reserved = planned(), planned(reserve_prompts=RESERVE)
    assert [name for name in reserved if name not in plain] == ["reserve", "exclude"]
    assert reserved["exclude"].inputs == {
        "prompts": plain["ingest"].keys,
        "exam-evaluate.reserve_prompts": reserved["reserve"].keys,
    }
    same = {name for name in plain if reserved[name].keys == plain[name].keys}
    assert same == {"ingest", "sample", "score-vader", "answers-opponent"}
    users = {
        name for name, node in reserved.items() if reserved["reserve"].keys in node.inputs.values()
    }
    assert users == {"exclude"}


def test_an_audit_compares_a_model_with_the_first_one_and_changes_no_other_node() -> None:
    before = planned(reserve_prompts=RESERVE)
    after = planned(reserve_prompts=RESERVE, audited="org/audited")
    assert [name for name in after if name not in before] == AUDIT
    assert {name: after[name].keys for name in before} == {
        name: node.keys for name, node in before.items()
    }
    audited, first, evaluate = (after[name] for name in AUDIT)
    assert audited.spec.model_dump()["policy"] == "org/audited#sha256-org/audited"
    assert first.spec.model_dump()["policy"] == "org/first#sha256-org/first"
    assert evaluate.inputs == {
        "prompts": after["reserve"].keys,
        "challenger": audited.keys,
        "opponent": first.keys,
    }


def test_there_is_no_audit_without_a_reserve_exam() -> None:
    with pytest.raises(ValidationError, match=r"set evaluate\.reserve_prompts"):
        planned(audited="org/audited")


def test_a_reward_model_does_not_learn_the_labels_of_a_reserve_exam() -> None:
    learns = {"model": "org/r", "opponent": "org/o", "earlier": "earlier.jsonl"}
    config = pinned(evaluate={"reserve_prompts": RESERVE}, reward_training=learns)
    nodes = plan_nodes(config)
    for exclude in ("exclude", "earlier-exclude"):
        assert nodes["reserve"].keys in nodes[exclude].inputs.values()
        assert nodes[exclude].keys in nodes["reward"].inputs.values()
    assert reward_keys(config) == nodes["reward"].keys
