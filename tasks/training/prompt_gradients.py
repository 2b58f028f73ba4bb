"""Per-prompt DPO gradients of the starting policy, and PVar (`pvar/gradient_bound.py`).

Gradients are by all weights of the policy, in float32. The cost is one forward and backward pass
per response, and memory for three times the weights.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pvar.correlation import correlation_table
from pvar.gradient_bound import mean_squared_difference, pair_weights
from pvar.variance import preference_variance
from tasks.training.logps import PromptAnswer, batch_logps

if TYPE_CHECKING:
    import torch

ROUNDING = 1e-4
"""Relative tolerance of the bound, for rounding in float32 sums over all weights."""


class ScoredAnswers(NamedTuple):
    """A prompt's responses as token ids, with their rewards in units of the reward scale."""

    prompt_id: str
    prompt_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]


class PromptGradient(NamedTuple):
    """One prompt's gradient at initialisation, in the units of the loss per unit of weight."""

    prompt_id: str
    num_responses: int
    pvar: float
    gradient_norm: float
    """‖E[β (p − ½) g]‖."""
    difference_norm: float
    """β √E‖g‖²."""

    @property
    def bound(self) -> float:
        """√PVar · β √E‖g‖²."""
        return float(np.sqrt(self.pvar)) * self.difference_norm

    @property
    def is_within_bound(self) -> bool:
        """Whether the theorem holds, up to rounding."""
        return self.gradient_norm <= self.bound * (1 + ROUNDING)


def measure_gradients(
    model: Any, prompts: Iterable[ScoredAnswers], *, beta: float
) -> Iterator[PromptGradient]:
    """Yield the gradients of each prompt, which must have two or more responses."""
    for prompt in prompts:
        weights = pair_weights(prompt.rewards)
        rows = [PromptAnswer(prompt.prompt_ids, answer) for answer in prompt.answers]
        total, expected, squared_norms = None, None, []
        for row, weight in zip(rows, weights, strict=True):
            gradient = _gradient(model, row)
            squared_norms.append(_squared_norm(gradient))
            if total is None or expected is None:
                total = [part.clone() for part in gradient]
                expected = [part.mul_(weight) for part in gradient]
            else:
                for parts, factor in ((total, 1.0), (expected, float(weight))):
                    for part, new in zip(parts, gradient, strict=True):
                        part.add_(new, alpha=factor)
        assert total is not None
        assert expected is not None
        yield PromptGradient(
            prompt.prompt_id,
            len(rows),
            float(preference_variance(np.array([prompt.rewards], np.float64))[0]),
            beta * _squared_norm(expected) ** 0.5,
            beta * mean_squared_difference(squared_norms, _squared_norm(total)) ** 0.5,
        )


def _gradient(model: Any, row: PromptAnswer) -> "list[torch.Tensor]":
    """∇log π(y|x) by every weight."""
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return list(torch.autograd.grad(batch_logps(model, [row]).sum(), weights))


def _squared_norm(parts: "Sequence[torch.Tensor]") -> float:
    return sum(float(part.double().square().sum()) for part in parts)


class Agreement(NamedTuple):
    """Correlation of gradients with PVar over prompts."""

    spearman: float
    """ρ of PVar and gradient norm; NaN for fewer than three prompts."""
    spearman_lower: float
    spearman_upper: float
    num_within_bound: int


def agreement(gradients: Sequence[PromptGradient]) -> Agreement:
    """Rank correlation with its 95 % interval, and how often the bound holds."""
    table = correlation_table(
        {
            "pvar": [gradient.pvar for gradient in gradients],
            "gradient_norm": [gradient.gradient_norm for gradient in gradients],
        }
    )
    return Agreement(
        float(table.spearman[0, 1]),
        float(table.spearman_lower[0, 1]),
        float(table.spearman_upper[0, 1]),
        sum(gradient.is_within_bound for gradient in gradients),
    )


def draw_gradients(gradients: Sequence[PromptGradient], path: Path) -> None:
    """A figure of gradient norm and bound against PVar, in the format of the file's suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    pvar = [gradient.pvar for gradient in gradients]
    norms, bounds = (
        [getattr(gradient, name) for gradient in gradients] for name in ("gradient_norm", "bound")
    )
    axes.vlines(pvar, norms, bounds, color="0.85", zorder=1)
    axes.scatter(pvar, bounds, marker="_", color="0.45", label="bound √PVar · β√E‖g‖²")
    axes.scatter(pvar, norms, s=18, color="#1f6feb", label="‖E[β(p − ½)g]‖")
    found = agreement(gradients)
    axes.set_title(
        f"Spearman's ρ = {found.spearman:.2f} ({found.spearman_lower:.2f} to "
        f"{found.spearman_upper:.2f}); within the bound: {found.num_within_bound} of "
        f"{len(gradients)} prompts",
        fontsize=10,
    )
    axes.set_xlabel("preference variance")
    axes.set_ylabel("norm of the DPO gradient at initialisation")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
