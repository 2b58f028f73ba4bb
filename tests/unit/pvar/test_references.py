"""References are found by their type, wherever they stand."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from pvar.config import PipelineConfig
from pvar.config_model import ConfigModel
from pvar.errors import ConfigError
from pvar.judge_config import RewardModelJudge
from pvar.references import (
    ModelReference,
    Pinned,
    Reference,
    find_references,
    replace_references,
    without_locations,
)
from pvar.reward_config import ClassifierReward, ImplicitReward


class Toy(ConfigModel):
    """A kind with two models, which nothing else knows."""

    kind: Literal["toy"] = "toy"
    strong: ModelReference
    weak: ModelReference | None = None
    others: tuple[ModelReference, ...] = ()
    text: str = "no reference"


class Plain(ConfigModel):
    kind: Literal["plain"] = "plain"


class Tree(ConfigModel):
    models: tuple[Annotated[Toy | Plain, Field(discriminator="kind")], ...]
    optional: Toy | None = None


TREE = Tree(
    models=(Plain(), Toy(strong="a#1", weak="b#2", others=("c#3", "d#4"))),
    optional=Toy(strong="e#5"),
)


def test_every_reference_is_found_with_the_fields_that_lead_to_it() -> None:
    assert find_references(TREE) == [
        Reference("models.strong", "model", "a#1"),
        Reference("models.weak", "model", "b#2"),
        Reference("models.others", "model", "c#3"),
        Reference("models.others", "model", "d#4"),
        Reference("optional.strong", "model", "e#5"),
    ]


def test_references_are_replaced_and_nothing_else() -> None:
    changed = replace_references(TREE, lambda each: each.text.upper())
    assert [each.text for each in find_references(changed)] == ["A#1", "B#2", "C#3", "D#4", "E#5"]
    assert changed.models[0] is TREE.models[0]
    assert isinstance(changed.models[1], Toy)
    assert changed.models[1].text == "no reference"
    assert replace_references(TREE, lambda each: each.text) is TREE


def test_what_is_left_of_a_pinned_reference_is_its_digest() -> None:
    assert without_locations(Toy(strong="/a#b#sha256-1")).strong == "sha256-1"
    with pytest.raises(ConfigError, match="'/a' is not pinned"):
        without_locations(Toy(strong="/a"))
    assert Pinned.parse("/a#b#1") == Pinned("/a#b", "1")


def test_a_pipeline_refers_to_models_and_data() -> None:
    config = PipelineConfig.model_validate(
        {
            "score": {
                "reward_models": [
                    ClassifierReward(name="c", model="org/c"),
                    ImplicitReward(policy="org/p", reference="org/r"),
                ]
            },
            "evaluate": {
                "judge": RewardModelJudge(reward_model=ClassifierReward(name="j", model="org/j"))
            },
            "ingest": {"decontaminate_against": ["a.jsonl", "b.jsonl"]},
        }
    )
    assert {(each.path, each.kind, each.text) for each in find_references(config)} == {
        ("policy", "model", "bundled:smollm2-135m-instruct"),
        ("ingest.source", "data", "bundled:sentiment"),
        ("ingest.decontaminate_against", "data", "a.jsonl"),
        ("ingest.decontaminate_against", "data", "b.jsonl"),
        ("score.reward_models.model", "model", "org/c"),
        ("score.reward_models.policy", "model", "org/p"),
        ("score.reward_models.reference", "model", "org/r"),
        ("evaluate.judge.reward_model.model", "model", "org/j"),
        ("evaluate.opponent", "model", "champion"),
    }
