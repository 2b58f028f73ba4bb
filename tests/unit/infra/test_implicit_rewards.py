"""Implicit rewards: sums of answer log-probabilities as the models themselves give them."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from infra.rewards.implicit import load_implicit_scorer
from pvar.errors import ModelError, ScoringError
from pvar.ports import ScoreRequest
from pvar.records import Message
from tests.unit.infra.tiny_models import change_weights, save_language_model, save_tokenizer

PROMPTS = ("How was it?", "And the food, in a sentence or two?")
REQUESTS = [
    ScoreRequest(prompt, f"{prompt}/{answer}", (Message("user", prompt),), answer)
    for prompt in PROMPTS
    for answer in ("Good.", "I liked the second half. " * 3)
]
BETA = 0.5


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return save_language_model(tmp_path / "policy", seed=0)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return save_language_model(tmp_path / "reference", seed=1)


def answer_logp(folder: Path, request: ScoreRequest) -> float:
    """The model's own log-probabilities of the tokens behind the rendered prompt, one text."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    user = {"role": "user", "content": request.messages[0].content}
    answer = {"role": "assistant", "content": request.response}
    prompt = tokenizer.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
    ids = tokenizer.apply_chat_template([user, answer], return_dict=False, return_tensors="pt")
    with torch.inference_mode():
        logps = model(ids).logits[0].log_softmax(dim=1)
    positions = range(len(prompt), ids.shape[1])
    return sum(logps[i - 1, ids[0, i]].item() for i in positions)


def test_reward_is_beta_times_the_difference_of_answer_log_probabilities(
    policy: Path, reference: Path
) -> None:
    scores = load_implicit_scorer(policy, reference, BETA, 300).score(REQUESTS)

    expected = [
        BETA * (answer_logp(policy, request) - answer_logp(reference, request))
        for request in REQUESTS
    ]
    assert [score.reward for score in scores] == pytest.approx(expected, abs=1e-2)


def test_capped_logits_are_capped(tmp_path: Path) -> None:
    """Gemma 2 caps its logits; leaving that out changes every log-probability."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = Gemma2Config(
            vocab_size=260,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            initializer_range=0.3,
            final_logit_softcapping=2.0,
            max_position_embeddings=2048,
        )
        Gemma2ForCausalLM(config).save_pretrained(tmp_path / str(seed))
        folders.append(save_tokenizer(tmp_path / str(seed)))

    scores = load_implicit_scorer(*folders, BETA, 300).score(REQUESTS)

    first, second = (answer_logp(folder, REQUESTS[0]) for folder in folders)
    assert scores[0].reward == pytest.approx(BETA * (first - second), abs=1e-2)


def test_model_with_another_output_layer_is_refused(tmp_path: Path) -> None:
    """Granite divides its logits by a constant."""
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        logits_scaling=3.0,
    )
    GraniteForCausalLM(config).save_pretrained(tmp_path)
    folder = save_tokenizer(tmp_path)

    with pytest.raises(
        ScoringError, match="GraniteForCausalLM computes its logits in an unsupported"
    ):
        load_implicit_scorer(folder, folder, BETA, 300)


def test_policy_that_is_its_reference_has_rewards_of_zero(policy: Path) -> None:
    scores = load_implicit_scorer(policy, policy, BETA, 300).score(REQUESTS)

    assert [score.reward for score in scores] == [0.0] * len(REQUESTS)


def test_missing_rewards_have_reasons_and_results_follow_the_requests(
    tmp_path: Path, policy: Path
) -> None:
    reference = save_language_model(tmp_path / "short", max_position_embeddings=300)
    scorer = load_implicit_scorer(policy, reference, BETA, 300)
    blank = REQUESTS[0]._replace(response=" ")
    long = REQUESTS[0]._replace(response="a" * 300)

    scores = scorer.score([blank, REQUESTS[0], long])

    assert [score.reason for score in scores] == ["empty_response", None, "too_long"]
    assert [score.reward is None for score in scores] == [True, False, True]


def test_models_with_different_templates_cannot_be_compared(policy: Path, reference: Path) -> None:
    template = reference / "chat_template.jinja"
    template.write_text("{{ eos_token }}" + template.read_text())

    with pytest.raises(ScoringError, match="different token ids"):
        load_implicit_scorer(policy, reference, BETA, 300)


def test_incomplete_model_is_refused(policy: Path, reference: Path) -> None:
    change_weights(reference, lm_head__weight=None)

    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        load_implicit_scorer(policy, reference, BETA, 300)
