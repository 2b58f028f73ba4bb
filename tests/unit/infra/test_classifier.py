"""Scores of classifiers: equal to transformers' own, one text at a time, whatever the batch."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from infra.rewards.classifier import ClassifierScorer, load_classifier_scorer
from pvar.errors import ModelError, ScoringError
from pvar.ports import ScoreRequest
from pvar.records import Message
from pvar.reward_config import ClassifierReward
from tests.unit.infra.tiny_models import END, change_weights, save_classifier, save_tokenizer

PROMPTS = ("How was the film?", "And the food, in one or two sentences, for somebody in a hurry?")
ANSWERS = ("Good.", "Bad, " * 20, "I liked the second half, but not the first.", "?")


def load(
    folder: Path,
    dtype: Literal["float32", "bfloat16"] = "float32",
    max_length_tokens: int = 1000,
    tokens_per_batch: int = 500,
) -> ClassifierScorer:
    settings = ClassifierReward(
        name="tiny", model="./tiny", dtype=dtype, max_length_tokens=max_length_tokens
    )
    return load_classifier_scorer(folder, settings, tokens_per_batch)


def request(response: str, prompt: str = PROMPTS[0]) -> ScoreRequest:
    return ScoreRequest(prompt, f"{prompt}/{response}", (Message("user", prompt),), response)


REQUESTS = [request(answer, prompt) for answer in ANSWERS for prompt in PROMPTS]


def rewards(scorer: ClassifierScorer, requests: list[ScoreRequest]) -> list[float]:
    found = [score.reward for score in scorer.score(requests)]
    assert None not in found
    return [reward for reward in found if reward is not None]


def oracle(folder: Path, requests: list[ScoreRequest]) -> list[float]:
    """Transformers' own classifier, one text at a time, without padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.config.pad_token_id = None  # it then scores the last token
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = []
    for each in requests:
        turns = [
            {"role": "user", "content": each.messages[0].content},
            {"role": "assistant", "content": each.response},
        ]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=False)
        assert ids[0, -1] == END
        with torch.inference_mode():
            scores.append(model(input_ids=ids).logits[0, 0].item())
    return scores


def test_rewards_are_those_of_the_whole_text_alone(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)

    # Padding and last token are the same id here: a search for the last id that is no padding
    # would score another token.
    assert rewards(load(folder), REQUESTS) == pytest.approx(oracle(folder, REQUESTS), rel=1e-4)


def test_model_with_sliding_windows_scores_alike(tmp_path: Path) -> None:
    """Its prompts cannot be shared between answers."""
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        use_sliding_window=True,
        sliding_window=16,
        max_window_layers=1,
        num_labels=1,
    )
    Qwen2ForSequenceClassification(config).save_pretrained(tmp_path)
    folder = save_tokenizer(tmp_path)
    scorer = load(folder)

    assert not scorer.backbone.shares_prompts
    assert rewards(scorer, REQUESTS) == pytest.approx(oracle(folder, REQUESTS), rel=1e-4)


@pytest.mark.parametrize("tokens_per_batch", [1, 300, 100_000])
def test_rewards_do_not_depend_on_the_batch(tmp_path: Path, tokens_per_batch: int) -> None:
    folder = save_classifier(tmp_path)
    one_at_a_time = [rewards(load(folder), [each])[0] for each in REQUESTS[:3]]

    together = rewards(load(folder, tokens_per_batch=tokens_per_batch), REQUESTS)

    assert together[:3] == pytest.approx(one_at_a_time, rel=1e-4)


def test_results_follow_the_requests_and_equal_texts_have_equal_rewards(tmp_path: Path) -> None:
    scorer = load(save_classifier(tmp_path))
    forward = scorer.score([*REQUESTS, REQUESTS[0]])

    backward = scorer.score(REQUESTS[::-1])

    assert [score.response_id for score in backward] == [
        each.response_id for each in REQUESTS[::-1]
    ]
    assert backward == forward[-2::-1]
    assert forward[-1] == forward[0]


def test_rewards_of_bfloat16_weights_are_not_rounded_to_bfloat16(tmp_path: Path) -> None:
    exact = rewards(load(save_classifier(tmp_path)), REQUESTS)

    found = rewards(load(tmp_path, dtype="bfloat16"), REQUESTS)

    assert found == pytest.approx(exact, rel=0.1, abs=0.1)
    rounded = torch.tensor(found).bfloat16().float().tolist()
    assert sum(one != other for one, other in zip(found, rounded, strict=True)) >= len(found) - 1


def test_conversation_that_is_too_long_has_no_reward(tmp_path: Path) -> None:
    # Begin of text, two headers of (1 + role + 1 + 2) tokens, two ends: "user" 8, "assistant" 13,
    # 1 + 8 + 17 + 1 + 13 + 1 = 41 beside the answer.
    scorer = load(save_classifier(tmp_path), max_length_tokens=50)

    fits, too_long = scorer.score([request("a" * 9), request("a" * 10)])

    assert fits.reward is not None
    assert (too_long.reward, too_long.reason) == (None, "too_long")


def test_context_of_the_model_is_a_limit_too(tmp_path: Path) -> None:
    scorer = load(save_classifier(tmp_path, max_position_embeddings=300))

    fits, too_long = scorer.score([request("a" * 259), request("a" * 260)])

    assert fits.reward is not None
    assert too_long.reason == "too_long"


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_empty_response_has_no_reward(tmp_path: Path, blank: str) -> None:
    [empty, good] = load(save_classifier(tmp_path)).score([request(blank), request("Good.")])

    assert (empty.reward, empty.reason) == (None, "empty_response")
    assert good.reward is not None


def test_reward_that_is_not_a_number_is_missing(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    poison_letter(folder, "Z")

    good, bad = load(folder).score([request("Good."), request("Zzz.")])

    assert good.reward is not None
    assert (bad.reward, bad.reason) == (None, "not_finite")


def test_model_without_any_finite_reward_is_an_error(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    poison_letter(folder, "Z")

    with pytest.raises(ScoringError, match="all 2 rewards are NaN or infinite"):
        load(folder).score([request("Zoo"), request("Zebra")])


def test_damaged_weights_are_refused_when_the_model_is_loaded(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    change_weights(folder, score__weight=torch.full((1, 32), torch.nan))

    with pytest.raises(ScoringError, match="nan"):
        load(folder)


def test_head_of_zeros_is_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    change_weights(folder, score__weight=torch.zeros(1, 32))

    with pytest.raises(ScoringError, match="the same score 0"):
        load(folder)


def test_checkpoint_without_a_score_head_is_refused(tmp_path: Path) -> None:
    """Loaded by transformers it would score with a new, random head."""
    folder = save_classifier(tmp_path)
    change_weights(folder, score__weight=None)

    with pytest.raises(ModelError, match=r"missing: score\.weight.*random numbers"):
        load(folder)


def test_checkpoint_with_a_missing_layer_is_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    change_weights(folder, model__layers__1__mlp__up_proj__weight=None)

    with pytest.raises(ModelError, match="lacks 1 weights of a LlamaModel"):
        load(folder)


def test_model_with_two_logits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="2 logits"):
        load(save_classifier(tmp_path, num_labels=2))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")

    with pytest.raises(ModelError, match="safetensors"):
        load(folder)


def test_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ModelError, match="no chat template"):
        load(folder)


def test_the_models_own_chat_template_is_followed(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    before = rewards(load(folder), [request("Good.")])
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{{ eos_token }}")

    after = rewards(load(folder), [request("Good.")])

    assert after == pytest.approx(oracle(folder, [request("Good.")]), rel=1e-4)
    assert after != pytest.approx(before, rel=1e-2)


def test_conversation_that_the_template_refuses_has_no_reward(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    refuse_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    template = folder / "chat_template.jinja"
    template.write_text(refuse_system + template.read_text())
    with_system = ScoreRequest(
        "p", "r", (Message("system", "Be brief."), Message("user", "Hi")), "Hello."
    )

    refused, good = load(folder).score([with_system, request("Good.")])

    assert (refused.reward, refused.reason) == (None, "template_refused")
    assert good.reward is not None


def poison_letter(folder: Path, letter: str) -> None:
    """Every text with this letter is scored NaN."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    weight = model.model.embed_tokens.weight.detach().clone()
    weight[tokenizer.convert_tokens_to_ids(letter)] = torch.nan
    change_weights(folder, model__embed_tokens__weight=weight)
