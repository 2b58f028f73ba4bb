"""Reward heads: compute a reward from hidden states, always in float32.

A head in bfloat16 would round rewards to 3 digits and make false ties. The tensors come from the
checkpoint. A checkpoint that does not have exactly the tensors of its family is rejected, so that a
head is never initialised at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from infra.rewards.checkpoint import Checkpoint
from infra.rewards.families import CheckpointConfig, Family
from infra.rewards.score_rows import Ids, ScoreRow
from pvar.errors import ModelError

if TYPE_CHECKING:
    import torch

LEFT_OVER = frozenset({"lm_head.weight"})
"""Tensors that some checkpoints keep from the original language model."""

ONE_LOGIT = frozenset({"score.weight"})
"""Tensors of a one-logit head."""


class Head(Protocol):
    """Splits conversations into rows and computes their rewards."""

    def split(self, conversation: Ids, prompt: Ids) -> int | None:
        """Index at which a row's own part begins (`infra.rewards.score_rows.Split`)."""
        ...

    def read(self, rows: Sequence[ScoreRow], states: Sequence["torch.Tensor"]) -> "torch.Tensor":
        """Rewards of rows, (num_rows,) (`infra.rewards.backbone.Reader`)."""
        ...


def common_start(conversation: Ids, prompt: Ids) -> int:
    """Length of the common prefix, at most up to the conversation's last token."""
    both = zip(prompt, conversation[:-1], strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], both)))


@dataclass(frozen=True)
class OneLogit:
    """reward = w · h_last."""

    weight: "torch.Tensor"
    """(1, hidden_size), float32."""

    def split(self, conversation: Ids, prompt: Ids) -> int:
        """After the common prefix with the rendered prompt; at least one token remains."""
        return common_start(conversation, prompt)

    def read(self, rows: Sequence[ScoreRow], states: Sequence["torch.Tensor"]) -> "torch.Tensor":
        """Score the state of the last token."""
        import torch

        return torch.stack([state[-1] for state in states]).float() @ self.weight[0]


@dataclass(frozen=True)
class Gated:
    """ArmoRM: reward = Σ_k gate_k(h_prompt) · (T^T W h_last)_k (arXiv 2406.12845, section 3).

    W predicts the objectives, T (fitted) takes verbosity out of them, and the gate, an MLP with a
    softmax of temperature `temperature`, weighs them by the prompt. h_prompt is the state at the
    beginning of the last answer header.
    """

    answer_header: Ids
    regression: "torch.Tensor"
    """W: (num_objectives, hidden_size)."""
    transform: "torch.Tensor"
    """T: (num_objectives, num_objectives)."""
    gate_layers: tuple[tuple["torch.Tensor", "torch.Tensor"], ...]
    """Weight (out, in) and bias (out,) of each layer."""
    gate_scale: "torch.Tensor"
    """(1,)"""
    temperature: float

    def split(self, conversation: Ids, prompt: Ids) -> int | None:
        """At the last answer header."""
        width = len(self.answer_header)
        starts = range(len(conversation) - width, -1, -1)
        return next((i for i in starts if conversation[i : i + width] == self.answer_header), None)

    def read(self, rows: Sequence[ScoreRow], states: Sequence["torch.Tensor"]) -> "torch.Tensor":
        """Weigh the objectives of the last token by the gate of the header's first one."""
        import torch

        last = torch.stack([state[-1] for state in states]).float()
        header = torch.stack([state[0] for state in states]).float()
        objectives = last @ self.regression.T @ self.transform
        return (self._gate(header) * objectives).sum(dim=1)

    def _gate(self, states: "torch.Tensor") -> "torch.Tensor":
        from torch.nn.functional import linear, relu, softmax

        for weight, bias in self.gate_layers[:-1]:
            states = relu(linear(states, weight, bias))
        logits = linear(states, *self.gate_layers[-1])
        return softmax(logits / self.temperature, dim=1) * self.gate_scale


def load_head(
    folder: Path, config: CheckpointConfig, family: Family, checkpoint: Checkpoint
) -> Head:
    """The head of a checkpoint; raises ModelError if its tensors do not match the family."""
    names = checkpoint.other_tensors - LEFT_OVER
    if family.head == "gated":
        header = checkpoint.tokenizer.encode(family.answer_header, add_special_tokens=False)
        return _gated(folder, config, names, tuple(header), checkpoint)
    return _one_logit(folder, config, names, checkpoint)


def _one_logit(
    folder: Path, config: CheckpointConfig, names: frozenset[str], checkpoint: Checkpoint
) -> OneLogit:
    _check_names(folder, names, ONE_LOGIT)
    check_one_logit(folder, config)
    return OneLogit(_read_tensors(folder, names, checkpoint)["score.weight"])


def check_one_logit(folder: Path, config: CheckpointConfig) -> None:
    """Raise ModelError unless the checkpoint's score has one row. Reads only the files' headers."""
    shapes = _read_shapes(folder, "score.")
    _check_names(folder, frozenset(shapes), ONE_LOGIT)
    num_logits = shapes["score.weight"][0]
    if num_logits != 1:
        labels = ", ".join(config.id2label.values()) or "unnamed"
        raise ModelError(
            f"{folder}: the model has {num_logits} logits ({labels}), not one, and does not say "
            "which combination of them is the reward; use a reward model with one logit"
        )


def _gated(
    folder: Path,
    config: CheckpointConfig,
    names: frozenset[str],
    header: Ids,
    checkpoint: Checkpoint,
) -> Gated:
    num_layers = sum(1 for name in names if name.startswith("gating.layers.")) // 2
    layers = [(f"gating.layers.{i}.weight", f"gating.layers.{i}.bias") for i in range(num_layers)]
    _check_names(
        folder,
        names,
        frozenset({"regression_layer.weight", "reward_transform_matrix", "gating.logit_scale"})
        | {name for layer in layers for name in layer},
    )
    tensors = _read_tensors(folder, names, checkpoint)
    return Gated(
        answer_header=header,
        regression=tensors["regression_layer.weight"],
        transform=tensors["reward_transform_matrix"],
        gate_layers=tuple((tensors[weight], tensors[bias]) for weight, bias in layers),
        gate_scale=tensors["gating.logit_scale"],
        temperature=config.gating_temperature,
    )


def _check_names(folder: Path, found: frozenset[str], wanted: frozenset[str]) -> None:
    if found == wanted:
        return
    missing, unknown = sorted(wanted - found), sorted(found - wanted)
    raise ModelError(
        f"{folder}: the head's weights do not match its architecture (missing: "
        f"{', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}), so it would "
        "score with random numbers; check that it was trained and saved as a reward model"
    )


def _read_tensors(
    folder: Path, names: frozenset[str], checkpoint: Checkpoint
) -> dict[str, "torch.Tensor"]:
    import torch
    from safetensors import safe_open

    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in names.intersection(file.keys()):
                tensors[name] = file.get_tensor(name).to(checkpoint.model.device, torch.float32)
    return tensors


def _read_shapes(folder: Path, prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors with this name prefix."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                if name.startswith(prefix):
                    shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes
