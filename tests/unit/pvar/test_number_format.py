"""What `auto` means on each kind of hardware, as the table of the module says."""

import pytest

from pvar.artifacts import Recipe
from pvar.config import PipelineConfig
from pvar.number_format import Hardware, NumberFormat, explain, resolve, resolved
from pvar.reward_config import (
    ClassifierReward,
    FakeReward,
    ImplicitReward,
    VaderReward,
    in_format,
    reward_format,
)

MODERN = Hardware("a GPU", frozenset({"bfloat16", "float16"}))
OLDER = Hardware("an older GPU", frozenset({"float16"}))
PLAIN = Hardware("a CPU", frozenset())


@pytest.mark.parametrize(
    ("hardware", "sampling", "training"),
    [
        (MODERN, "bfloat16", "bfloat16"),
        (OLDER, "float16", "float32"),
        (PLAIN, "float32", "float32"),
    ],
)
def test_auto_follows_the_hardware_and_a_named_format_does_not(
    hardware: Hardware, sampling: NumberFormat, training: NumberFormat
) -> None:
    assert resolve("auto", hardware, learns=False) == sampling
    assert resolve("auto", hardware, learns=True) == training
    named: tuple[NumberFormat, ...] = ("float32", "bfloat16", "float16")
    for each in named:
        assert resolve(each, hardware, learns=False) == each
        assert resolve(each, hardware, learns=True) == each


def test_the_explanation_names_format_hardware_and_reason() -> None:
    assert explain(MODERN) == "bfloat16: a GPU computes bfloat16 natively"
    assert explain(PLAIN) == "float32: a CPU does not compute bfloat16 natively"
    assert explain(OLDER) == (
        "float16 for sampling and scoring, float32 for training: an older GPU does not compute "
        "bfloat16 natively"
    )


def test_an_engine_is_never_given_auto() -> None:
    assert resolved("float16") == "float16"
    with pytest.raises(ValueError, match="resolve it before a model is loaded"):
        resolved("auto")


def test_auto_is_the_default_and_is_hashed_as_the_word() -> None:
    config = PipelineConfig()
    assert config.sample.dtype == config.evaluate.answers.dtype == config.train.precision == "auto"
    recipe = Recipe(stage="sample", version=1, identity={"dtype": "auto"}, inputs={})
    on_gpu = recipe.model_copy(update={"number_format": "bfloat16"})
    named = Recipe(stage="sample", version=1, identity={"dtype": "bfloat16"}, inputs={})
    assert on_gpu.digest == recipe.digest
    assert named.digest != recipe.digest


def test_only_reward_models_with_weights_have_a_format() -> None:
    classifier = ClassifierReward(name="r", model="./r")
    implicit = ImplicitReward(policy="./p", reference="./q")
    assert reward_format(classifier) == "auto"
    assert in_format(classifier, "bfloat16").dtype == "bfloat16"
    assert reward_format(implicit) == "float32"
    for each in (implicit, VaderReward(), FakeReward()):
        assert in_format(each, "bfloat16") == each
    assert reward_format(VaderReward()) is reward_format(FakeReward()) is None
