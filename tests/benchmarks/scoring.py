"""Speed of scoring, beside one response at a time and unsorted batches of 32, at equal scores.

python tests/benchmarks/scoring.py [--model small|smollm2] [--prompts 64] [--responses 8]

The prompts are the demo's; the answers are random words, their lengths log-normal (median 40
words, σ = 0.8, at most 300). The tokenizer and chat template are SmolLM2's. Weights do not change
the time, so the reward model is random: `small` is a Llama of 8 layers and width 256, `smollm2` has
the shape of SmolLM2-135M. All three score from messages to numbers, on one core.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import torch
from machine import describe_machine
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
)

from infra.bundled_model import convert_bundled_model
from infra.rewards.classifier import ClassifierScorer, load_classifier_scorer
from pvar.chat import conversation_token_ids
from pvar.ports import ScoreRequest
from pvar.records import Message
from pvar.reward_config import ClassifierReward

SHAPES = {
    "small": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8},
    "smollm2": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30},
}
HEADS = {"small": (4, 2), "smollm2": (9, 3)}
UNUSED_ID = 0
"""<|endoftext|>: in no conversation, so transformers' classifier pads with it safely."""


class Baseline:
    """Transformers' own classifier, as public scripts use it."""

    def __init__(self, folder: Path) -> None:
        self.model = LlamaForSequenceClassification.from_pretrained(folder).eval()
        self.model.config.pad_token_id = UNUSED_ID
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def score(self, requests: Sequence[ScoreRequest], batch_size: int) -> list[float]:
        """In the order given, padded on the right to the batch's longest."""
        scores: list[float] = []
        for start in range(0, len(requests), batch_size):
            rows = [
                conversation_token_ids(self.tokenizer, each.messages, each.response)
                for each in requests[start : start + batch_size]
            ]
            width = max(map(len, rows))
            ids = torch.tensor([row + [UNUSED_ID] * (width - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            with torch.inference_mode():
                scores += self.model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()
        return scores


def save_model(shape: str, folder: Path) -> None:
    """A random one-logit reward model with SmolLM2's tokenizer."""
    convert_bundled_model("smollm2-135m-instruct", folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    heads, kv_heads = HEADS[shape]
    config = LlamaConfig(
        vocab_size=49152,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        num_labels=1,
        **SHAPES[shape],
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)


def make_requests(num_prompts: int, num_responses: int) -> list[ScoreRequest]:
    """Answers of random words to the demo's prompts, prompt by prompt, lengths mixed."""
    lines = resources.files("pvar").joinpath("data/sentiment_prompts.jsonl").read_text()
    prompts = [json.loads(line)["prompt"] for line in lines.splitlines()[:num_prompts]]
    rng = random.Random(0)
    words = sorted({word for prompt in prompts for word in prompt.split()})
    return [
        ScoreRequest(
            f"{number}",
            f"{number}-{index}",
            (Message("user", prompt),),
            " ".join(
                rng.choices(words, k=min(300, max(1, round(40 * rng.lognormvariate(0, 0.8)))))
            ),
        )
        for number, prompt in enumerate(prompts)
        for index in range(num_responses)
    ]


def seconds(run: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Processor time and result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def describe_lengths(tokenizer: PreTrainedTokenizerBase, requests: list[ScoreRequest]) -> str:
    """Tokens of the conversations."""
    lengths = sorted(
        len(conversation_token_ids(tokenizer, each.messages, each.response)) for each in requests
    )
    middle = lengths[len(lengths) // 2]
    return f"{lengths[0]} to {lengths[-1]} tokens, median {middle}, {sum(lengths)} in all"


def ours(scorer: ClassifierScorer, requests: list[ScoreRequest]) -> list[float]:
    """Rewards; the benchmark has no missing ones."""
    return [score.reward for score in scorer.score(requests) if score.reward is not None]


def main() -> None:
    """Time the three ways and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=sorted(SHAPES), default="small")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--responses", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(options.model, folder)
        baseline = Baseline(folder)
        settings = ClassifierReward(name=options.model, model=name, dtype="float32")
        scorer = load_classifier_scorer(folder, settings, None)
    requests = make_requests(options.prompts, options.responses)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}, torch {torch.__version__}")
    print(f"{len(requests)} responses: {describe_lengths(baseline.tokenizer, requests)}")
    alone, expected = seconds(lambda: baseline.score(requests, 1))
    unsorted, _ = seconds(lambda: baseline.score(requests, 32))
    batched, found = seconds(lambda: ours(scorer, requests))
    difference = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    print("| way | seconds of one core | responses/s |\n|---|---|---|")
    for way, taken in (
        ("one at a time", alone),
        ("unsorted batches of 32", unsorted),
        ("this project", batched),
    ):
        print(f"| {way} | {taken:.1f} | {len(requests) / taken:.1f} |")
    print(
        f"{min(alone, unsorted) / batched:.2f} times as fast as the better of the two; largest "
        f"difference of a score {difference:.1e}, of scores between {min(found):.2f} and "
        f"{max(found):.2f}"
    )


if __name__ == "__main__":
    main()
