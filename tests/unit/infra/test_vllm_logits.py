"""What is settled about a reward model for vLLM before and without its engine."""

from pathlib import Path

import pytest
import torch

from infra.engines.vllm_sampler import read_logit
from infra.rewards.vllm_classifier import load_vllm_classifier
from pvar.errors import ModelError, ScoringError
from pvar.reward_config import ClassifierReward
from pvar.runtime_config import RuntimeConfig
from tests.unit.infra.tiny_models import change_weights, save_classifier


def load(folder: Path) -> None:
    settings = ClassifierReward(
        name="tiny", model=str(folder), max_length_tokens=512, dtype="float32"
    )
    load_vllm_classifier(folder, settings, RuntimeConfig())


def test_model_with_two_logits_is_refused_before_an_engine_starts(tmp_path: Path) -> None:
    # transformers names it as it names one-logit models: only the shape of the head tells.
    with pytest.raises(ModelError, match=r"the model has 2 logits"):
        load(save_classifier(tmp_path, num_labels=2))


def test_checkpoint_without_a_score_head_is_refused_before_an_engine_starts(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    change_weights(folder, score__weight=None, score__bias=torch.zeros(1))
    with pytest.raises(ModelError, match=r"missing: score\.weight; unknown: score\.bias"):
        load(folder)


def test_one_logit_is_read_none_is_missing_and_several_are_refused() -> None:
    assert read_logit([-1.5]) == -1.5
    assert read_logit([]) is None
    with pytest.raises(ScoringError, match="2 logits"):
        read_logit([0.3, -0.3])
