"""Architectures of public reward models: scored by the right head, or refused by name."""

from pathlib import Path

import pytest

from infra.rewards.families import CheckpointConfig, read_checkpoint_config, recognise
from pvar.errors import ModelError

FOLDER = Path("some-model")


@pytest.mark.parametrize(
    ("architecture", "head"),
    [
        ("LlamaForSequenceClassification", "one_logit"),  # Skywork-Reward-(V2-)Llama-3.*
        ("Gemma2ForSequenceClassification", "one_logit"),  # Skywork-Reward-Gemma-2-27B
        ("Qwen3ForSequenceClassification", "one_logit"),  # Skywork-Reward-V2-Qwen3-*
        ("MistralForSequenceClassification", "one_logit"),
        ("LlamaForRewardModelWithGating", "gated"),  # ArmoRM-Llama3-8B-v0.1
    ],
)
def test_supported_architectures_have_their_head(architecture: str, head: str) -> None:
    assert recognise(FOLDER, CheckpointConfig(architectures=(architecture,))).head == head


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("LlamaForCausalLM", "generates text"),
        ("Qwen2ForProcessRewardModel", "process reward model"),  # Qwen2.5-Math-PRM
        ("Qwen2ForTokenClassification", "labels every token"),
        ("T5ForConditionalGeneration", "generates its verdict"),  # SteamSHP
        ("InternLM2ForRewardModel", "custom code"),  # internlm2-*-reward
        ("Qwen2ForRewardModel", "custom code"),  # Qwen2.5-Math-RM
        ("LlamaForScore", "custom code"),  # beaver
        ("INFORMForSequenceClassification", "custom code"),  # INF-ORM
        ("BertForSequenceClassification", "encoder"),
        ("SomethingElse", "not a supported reward model"),
    ],
)
def test_other_architectures_are_refused_by_name_with_what_is_supported(
    architecture: str, reason: str
) -> None:
    with pytest.raises(ModelError) as caught:
        recognise(FOLDER, CheckpointConfig(architectures=(architecture,)))

    message = str(caught.value)
    assert architecture in message
    assert reason in message
    assert "supported are" in message


def test_checkpoint_that_names_no_architecture_is_refused() -> None:
    with pytest.raises(ModelError, match="none named"):
        recognise(FOLDER, CheckpointConfig())


@pytest.mark.parametrize("content", [None, "", "[]", '{"architectures": 3}'])
def test_unreadable_config_is_a_model_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)

    with pytest.raises(ModelError, match=r"config\.json"):
        read_checkpoint_config(tmp_path)
