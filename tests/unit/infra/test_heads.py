"""ArmoRM's head agrees with its authors' formula; other heads under its name are refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, LlamaModel

from infra.rewards.classifier import load_classifier_scorer
from pvar.errors import ModelError, ScoringError
from pvar.ports import ScoreRequest
from pvar.records import Message
from pvar.reward_config import ClassifierReward
from tests.unit.infra.tiny_models import change_weights, save_gated

NUM_OBJECTIVES = 3
SETTINGS = ClassifierReward(name="armo", model="./tiny", max_length_tokens=1000, dtype="float32")
PROMPTS = ("How was it?", "And the food?")
REQUESTS = [
    ScoreRequest(prompt, f"{prompt}/{answer}", (Message("user", prompt),), answer)
    for prompt in PROMPTS
    for answer in ("Good.", "I liked the second half, but not the first. " * 3)
]


def head(seed: int = 1) -> dict[str, torch.Tensor]:
    """Tensors as RLHFlow/ArmoRM-Llama3-8B-v0.1 names them, with one hidden gating layer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "regression_layer.weight": normal(NUM_OBJECTIVES, 32),
        "reward_transform_matrix": normal(NUM_OBJECTIVES, NUM_OBJECTIVES),
        "gating.logit_scale": torch.tensor([1.5]),
        "gating.layers.0.weight": normal(8, 32),
        "gating.layers.0.bias": normal(8),
        "gating.layers.1.weight": normal(NUM_OBJECTIVES, 8),
        "gating.layers.1.bias": normal(NUM_OBJECTIVES),
    }


def published_score(folder: Path, request: ScoreRequest) -> float:
    """By the model card: coefficients = gating · Tᵀ, score = Σ rewards · coefficients."""
    tensors = head()
    backbone = LlamaModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [
        {"role": "user", "content": request.messages[0].content},
        {"role": "assistant", "content": request.response},
    ]
    ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=False)
    text = tokenizer.decode(ids[0])
    before_header = text[: text.rindex("<|eot_id|><|start_header_id|>assistant")]
    prompt_end = len(tokenizer.encode(before_header, add_special_tokens=False))
    gate = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, NUM_OBJECTIVES))
    gate.load_state_dict(
        {
            f"{2 * layer}.{kind}": tensors[f"gating.layers.{layer}.{kind}"]
            for layer in (0, 1)
            for kind in ("weight", "bias")
        }
    )
    with torch.inference_mode():
        states = backbone(ids).last_hidden_state[0]
        gating = torch.softmax(gate(states[prompt_end]) / 2.0, dim=0) * 1.5
        rewards = tensors["regression_layer.weight"] @ states[-1]
        return float((rewards * (tensors["reward_transform_matrix"] @ gating)).sum())


def test_gated_reward_is_that_of_the_published_formula(tmp_path: Path) -> None:
    folder = save_gated(tmp_path, head())

    scores = load_classifier_scorer(folder, SETTINGS, 500).score(REQUESTS)

    expected = [published_score(folder, request) for request in REQUESTS]
    assert [score.reward for score in scores] == pytest.approx(expected, rel=1e-4)


def test_head_of_another_form_under_the_same_name_is_refused(tmp_path: Path) -> None:
    """QRM calls itself by ArmoRM's architecture, but normalises its gating layers."""
    folder = save_gated(tmp_path, head() | {"gating.layers.2.running_mean": torch.zeros(8)})

    with pytest.raises(ModelError, match=r"unknown: gating\.layers\.2\.running_mean"):
        load_classifier_scorer(folder, SETTINGS, 500)


def test_head_with_missing_tensors_is_refused(tmp_path: Path) -> None:
    folder = save_gated(tmp_path, head())
    change_weights(folder, reward_transform_matrix=None)

    with pytest.raises(ModelError, match="missing: reward_transform_matrix"):
        load_classifier_scorer(folder, SETTINGS, 500)


def test_template_without_the_gates_header_is_refused(tmp_path: Path) -> None:
    folder = save_gated(tmp_path, head())
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|eot_id|>", ""))

    with pytest.raises(ScoringError, match="template_mismatch"):
        load_classifier_scorer(folder, SETTINGS, 500)


def test_language_model_head_that_was_left_in_is_no_obstacle(tmp_path: Path) -> None:
    folder = save_gated(tmp_path, head() | {"lm_head.weight": torch.zeros(260, 32)})

    assert "lm_head.weight" in load_file(folder / "model.safetensors")
    load_classifier_scorer(folder, SETTINGS, 500)
