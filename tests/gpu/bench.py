"""What the checks share: models of a real shape with random weights, texts, and the peak.

The weights are bfloat16, so that float32 computes with the same ones, and spread as 1/√width, so
that each layer changes its input as much as in a trained model. The tokenizer has a token per byte,
and padding is the end-of-turn token, which every conversation ends with.
"""

import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pvar.number_format import NumberFormat, resolve
from pvar.ports import SampleRequest, ScoreRequest
from pvar.records import Message, Pair
from tests.gpu.rows import LeftOut

Result = TypeVar("Result")

LIMITS: dict[NumberFormat, float] = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
"""Rounding of a log-probability of one token, in nats, that is taken for rounding."""


class Shape(NamedTuple):
    """A model's shape, and how much is computed with it."""

    name: str
    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    prompts: int
    responses: int
    """Per prompt."""
    characters: tuple[int, int]
    """Least and most of a prompt or an answer; a token is one of them."""
    new_tokens: int
    pairs: int
    steps: int
    pairs_per_device: int
    matrices: int
    """Width of the matrices whose product is measured."""


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 2, 128, 256, 4, 2, 512, 6, 3, (6, 60), 12, 8, 3, 4, 1024),
        # Llama-3.2-1B: 1.24e9 parameters.
        Shape("1b", 16, 2048, 8192, 32, 8, 128256, 32, 8, (64, 640), 64, 32, 5, 8, 8192),
        # Llama-3.1-8B, but for its own output layer: 7.50e9 parameters.
        Shape("8b", 32, 4096, 14336, 32, 8, 128256, 16, 8, (64, 640), 64, 16, 3, 4, 8192),
    )
}


@dataclass(frozen=True)
class Bench:
    """The machine, a shape, and a folder for the models."""

    shape: Shape
    folder: Path
    device: str
    num_gpus: int

    @cached_property
    def peak(self) -> "Peak":
        """Of one GPU, or of the processor."""
        import torch

        from tests.gpu.card import measured_peak, published_peak

        measured = measured_peak(torch.bfloat16, self.shape.matrices, self.device)
        published = published_peak(torch.cuda.get_device_name()) if self.device == "cuda" else None
        single = measured_peak(torch.float32, self.shape.matrices, self.device)
        return Peak(measured, single, published)

    @cached_property
    def low(self) -> NumberFormat:
        """The format that is compared with float32: that of `auto`, or bfloat16, emulated."""
        from infra.hardware import read_hardware

        found = resolve("auto", read_hardware(), learns=False)
        return "bfloat16" if found == "float32" else found

    @cached_property
    def trained(self) -> NumberFormat:
        """As `low`, for training."""
        return "float32" if self.low == "float16" else self.low

    def policy(self, seed: int = 0) -> Path:
        """A causal language model."""
        from transformers import LlamaForCausalLM

        return self._model(f"policy-{seed}", LlamaForCausalLM, seed)

    def classifier(self) -> Path:
        """A reward model with one logit."""
        from transformers import LlamaForSequenceClassification

        return self._model("classifier", LlamaForSequenceClassification, 2, num_labels=1)

    def gated(self) -> Path:
        """A reward model of ArmoRM's form."""
        from transformers import LlamaModel

        architecture = {"architectures": ["LlamaForRewardModelWithGating"]}
        return self._model("gated", LlamaModel, 3, gating_temperature=2.0, **architecture)

    def _model(self, name: str, kind: Any, seed: int, **changes: Any) -> Path:
        from tests.unit.infra.tiny_models import save_tokenizer

        folder = self.folder / name
        if folder.exists():
            return folder
        unfinished = self.folder / f"{name}-unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        _save(kind, self._config(**changes), unfinished, seed, self.device)
        save_tokenizer(unfinished, vocab_size=self.shape.vocabulary)
        return unfinished.rename(folder)

    def _config(self, **changes: Any) -> Any:
        from tests.unit.infra.tiny_models import tiny_config

        shape = self.shape
        return tiny_config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=4096,
            initializer_range=shape.width**-0.5,
            tie_word_embeddings=True,
            **changes,
        )

    @property
    def requests(self) -> list[SampleRequest]:
        """Prompts of different lengths."""
        return [SampleRequest(*prompt) for prompt in self._prompts()]

    @property
    def conversations(self) -> list[ScoreRequest]:
        """Answers of different lengths to the prompts."""
        draw = random.Random(1)
        return [
            ScoreRequest(prompt_id, f"{prompt_id}-{index}", messages, self._text(draw))
            for prompt_id, messages in self._prompts()
            for index in range(self.shape.responses)
        ]

    @property
    def pairs(self) -> list[Pair]:
        """Two answers to each prompt, as often as it takes."""
        draw, prompts = random.Random(2), self._prompts()
        return [
            Pair(
                prompts[place % len(prompts)][0],
                prompts[place % len(prompts)][1],
                self._text(draw),
                self._text(draw),
                1.0,
                0.0,
            )
            for place in range(self.shape.pairs)
        ]

    def _prompts(self) -> list[tuple[str, tuple[Message, ...]]]:
        draw = random.Random(0)
        return [
            (f"prompt-{number:03}", (Message("user", self._text(draw)),))
            for number in range(self.shape.prompts)
        ]

    def _text(self, draw: random.Random) -> str:
        """Letters and spaces, neither at the start nor at the end."""
        letters = "abcdefghijklmnopqrstuvwxyz"
        inner = draw.choices(f"{letters}     ", k=draw.randint(*self.shape.characters) - 2)
        return "".join((draw.choice(letters), *inner, draw.choice(letters)))

    @property
    def flops_per_token(self) -> float:
        """Of a forward pass: two per weight of a matrix product, the output layer's left out."""
        shape = self.shape
        head = shape.width // shape.heads
        attention = shape.width * head * 2 * (shape.heads + shape.kv_heads)
        return 2.0 * shape.layers * (attention + 3 * shape.width * shape.inner)

    @property
    def output_flops_per_token(self) -> float:
        """Of the output layer."""
        return 2.0 * self.shape.width * self.shape.vocabulary

    @property
    def num_parameters(self) -> float:
        """Of the policy."""
        return (self.flops_per_token + self.output_flops_per_token) / 2

    def speed(self, tokens: float, seconds: float, flops_per_token: float, devices: int = 1) -> str:
        """Tokens a second, and model flops as a share of the peak."""
        flops = tokens * flops_per_token / seconds
        share = flops / devices / self.peak.best
        return f"{tokens / seconds:,.0f} tokens/s, {readable(flops)} ({share:.1%} of the peak)"

    def require_memory(self, bytes_per_parameter: float, devices: int = 1) -> None:
        """Raise LeftOut if so much does not fit into `devices` GPUs; nothing on a CPU."""
        if self.device != "cuda":
            return
        import torch

        wanted = bytes_per_parameter * self.num_parameters / devices
        there = torch.cuda.get_device_properties(0).total_memory
        if wanted > 0.9 * there:
            raise LeftOut(
                f"needs about {wanted / 1e9:.0f} GB on a GPU, and this one has {there / 1e9:.0f}; "
                "choose a smaller --size"
            )


class Peak(NamedTuple):
    """Operations a second."""

    measured: float
    """Products of square matrices in bfloat16."""
    float32: float
    """The same in float32."""
    published: float | None
    """By the card's data sheet; None for a CPU, or a card that is not listed."""

    @property
    def best(self) -> float:
        """What shares are of."""
        return self.published or max(self.measured, self.float32)


def _save(kind: Any, config: Any, folder: Path, seed: int, device: str) -> None:
    import torch

    (architecture,) = config.architectures or (kind.__name__,)
    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = kind(config)
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)
    config.architectures = [architecture]
    if kind.__name__ == "LlamaModel":
        _add_gate(folder, config)


def _add_gate(folder: Path, config: Any) -> None:
    """Make a saved decoder a model of ArmoRM's form; names as RLHFlow/ArmoRM-Llama3-8B-v0.1's."""
    import torch
    from safetensors.torch import load_file, save_file

    objectives, inner, width = 19, min(1024, config.hidden_size), config.hidden_size
    sizes = (width, inner, inner, objectives)
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= {f"model.{name}": tensor for name, tensor in load_file(path).items()}
        path.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    for layer, (before, after) in enumerate(pairwise(sizes)):
        tensors[f"gating.layers.{layer}.weight"] = torch.randn(after, before) * before**-0.5
        tensors[f"gating.layers.{layer}.bias"] = torch.randn(after)
    tensors |= {
        "regression_layer.weight": torch.randn(objectives, width) * width**-0.5,
        "reward_transform_matrix": torch.eye(objectives),
        "gating.logit_scale": torch.tensor([1.5]),
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)


def timed(run: Callable[[], Result]) -> tuple[Result, float]:
    """The result, and seconds on the wall. What it computes must be on the CPU at its end."""
    began = time.perf_counter()
    result = run()
    return result, time.perf_counter() - began


def readable(flops: float) -> str:
    """Operations a second with a unit."""
    unit, name = (1e12, "TFLOP/s") if flops >= 1e12 else (1e9, "GFLOP/s")
    return f"{flops / unit:,.1f} {name}"


def worst(values: Sequence[float]) -> float:
    """The largest absolute value; infinite if one is no number."""
    return max((abs(value) if value == value else float("inf") for value in values), default=0.0)
