"""Scoring with the real SmolLM2, whose padding and end-of-sequence ids are the same."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
)

from infra.rewards.classifier import load_classifier_scorer
from infra.rewards.implicit import load_implicit_scorer
from pvar.chat import conversation_token_ids, prompt_token_ids
from pvar.ports import ScoreRequest
from pvar.records import Message
from pvar.reward_config import ClassifierReward
from tests.services.packages import NEEDS_SMOLLM2

pytestmark = [
    pytest.mark.slow,
    NEEDS_SMOLLM2,
]

ANSWERS = {
    "What is the capital of France?": (
        "The capital of France is Paris.",
        "Paris. It lies on the river Seine and has about two million inhabitants.",
    ),
    "Write one sentence about a rainy day.": (
        "The rain fell softly on the roof while she read by the window.",
        "It rained.",
    ),
}
REQUESTS = [
    ScoreRequest(prompt, f"{prompt}/{answer}", (Message("user", prompt),), answer)
    for prompt, answers in ANSWERS.items()
    for answer in answers
]
BETA = 0.1


@pytest.fixture(scope="module")
def damaged(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with noise on its weights: a worse model of language."""
    folder = tmp_path_factory.mktemp("damaged")
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight += 0.2 * weight.std(correction=0) * noise
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(smollm2).save_pretrained(folder)
    return folder


def answer_logps(folder: Path) -> list[float]:
    """By the model itself, one text at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sums = []
    for request in REQUESTS:
        start = len(prompt_token_ids(tokenizer, request.messages))
        ids = conversation_token_ids(tokenizer, request.messages, request.response)
        with torch.inference_mode():
            logps = model(torch.tensor([ids])).logits[0].log_softmax(dim=1)
        sums.append(sum(logps[i - 1, ids[i]].item() for i in range(start, len(ids))))
    return sums


def test_implicit_rewards_are_those_of_the_models_and_favour_the_sound_one(
    smollm2: Path, damaged: Path
) -> None:
    scores = load_implicit_scorer(smollm2, damaged, BETA, None).score(REQUESTS)

    rewards = [score.reward for score in scores]
    pairs = zip(answer_logps(smollm2), answer_logps(damaged), strict=True)
    assert rewards == pytest.approx([BETA * (one - other) for one, other in pairs], abs=1e-3)
    assert all(reward is not None and reward > 0 for reward in rewards)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_classifier_scores_the_last_token_though_padding_is_its_id(
    smollm2: Path, tmp_path: Path, dtype: str
) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        smollm2, num_labels=1, dtype=torch.float32
    ).eval()
    assert isinstance(model, LlamaForSequenceClassification)
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    tokenizer.save_pretrained(tmp_path)
    settings = ClassifierReward.model_validate({"name": "r", "model": "./r", "dtype": dtype})

    scores = load_classifier_scorer(tmp_path, settings, None).score(REQUESTS)

    model.config.pad_token_id = None  # transformers then scores the last token of a single text
    expected = []
    for request in REQUESTS:
        ids = conversation_token_ids(tokenizer, request.messages, request.response)
        with torch.inference_mode():
            expected.append(model(torch.tensor([ids])).logits[0, 0].item())
    tolerance = {"float32": 1e-4, "bfloat16": 5e-2}[dtype] * max(map(abs, expected))
    assert [score.reward for score in scores] == pytest.approx(expected, abs=tolerance)
