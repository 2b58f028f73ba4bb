"""Per-prompt DPO gradients: of labels by preference probability, and of the pairs that are trained.

Both are of one prompt at one model, by all its weights, in float32 (`pvar/gradient_bound.py` has
the formulas and says which of them PVar bounds). The responses are those of the starting policy, at
a trained model too, and the labels are the reward model's. Norms are in units of the loss (nats)
per unit of weight.

The cost is one forward and backward pass per response, and memory for eight times the weights: the
model, a response's gradient, three sums of the prompt's, two of its group's, and what autograd
keeps. The sums of a group are enough for its signal and noise (`pvar/signal_to_noise.py`), so the
groups are measured one after the other.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pvar.gradient_bound import (
    Floats,
    hard_label_weight,
    label_gap,
    mean_squared_difference,
    pair_weights,
)
from pvar.signal_to_noise import SignalToNoise, signal_to_noise
from pvar.variance import preference_variance
from tasks.training.logps import PromptAnswer, batch_logps

if TYPE_CHECKING:
    import torch

ROUNDING = 1e-4
"""Relative tolerance of the bound, for rounding in float32 sums over all weights."""


class AnswerPair(NamedTuple):
    """Token ids of the two answers of a pair that training uses."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


class ScoredAnswers(NamedTuple):
    """A prompt's responses as token ids, with their rewards in units of the reward scale."""

    prompt_id: str
    prompt_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]
    pairs: tuple[AnswerPair, ...] = ()
    """What the pair rule makes of the prompt. The answers may be others than the responses."""

    @property
    def rows(self) -> list[PromptAnswer]:
        """The responses, and behind them the answers of pairs that are none of them."""
        paired = [answer for pair in self.pairs for answer in pair]
        others = [answer for answer in dict.fromkeys(paired) if answer not in self.answers]
        return [PromptAnswer(self.prompt_ids, answer) for answer in (*self.answers, *others)]


class PromptGradient(NamedTuple):
    """The gradients of one prompt, in units of the loss per unit of weight."""

    prompt_id: str
    rewards: tuple[float, ...]
    """One per response, in units of the reward scale."""
    log_ratios: tuple[float, ...]
    """log π_θ(y|x) − log π_ref(y|x) of each response, in nats; 0 at the starting policy."""
    pvar: float
    """By the rewards."""
    policy_pvar: float
    """By the policy's implicit rewards β · log_ratios; 0 at the starting policy."""
    label_gap: float
    """E[(p − q)²]; PVar at the starting policy."""
    soft_norm: float
    """‖E[β (p − q) g]‖, of soft labels, or of drawn ones in expectation."""
    difference_norm: float
    """β √E‖g‖²."""
    num_pairs: int
    """Pairs that the rule makes of the prompt."""
    margin: float | None
    """Mean of the pairs' m = β (log-ratio of chosen − of rejected); None without a pair."""
    trained_norm: float | None
    """Norm of the mean of the pairs' gradients β σ(−m) (G_w − G_l); None without a pair."""

    @property
    def bound(self) -> float:
        """√E[(p − q)²] · β √E‖g‖², which bounds `soft_norm` and not `trained_norm`."""
        return float(np.sqrt(self.label_gap)) * self.difference_norm

    @property
    def tightness(self) -> float:
        """soft_norm / bound, 0 to 1; NaN where the bound is 0."""
        return self.soft_norm / self.bound if self.bound > 0 else float("nan")

    @property
    def is_within_bound(self) -> bool:
        """Whether the theorem holds, up to rounding."""
        return self.soft_norm <= self.bound * (1 + ROUNDING)


class PromptGroup(NamedTuple):
    """Prompts of similar PVar."""

    prompts: tuple[PromptGradient, ...]
    soft: SignalToNoise
    trained: SignalToNoise
    """Over the prompts with a pair."""


class GradientSum:
    """A weighted sum of gradients by every weight."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []

    def add(self, parts: "Sequence[torch.Tensor]", factor: float = 1.0) -> None:
        """Add `factor` times a gradient."""
        if not self._parts:
            self._parts = [part * factor for part in parts]
            return
        for total, part in zip(self._parts, parts, strict=True):
            total.add_(part, alpha=factor)

    @property
    def parts(self) -> "Sequence[torch.Tensor]":
        """One tensor per weight; empty before the first gradient."""
        return self._parts

    @property
    def squared_norm(self) -> float:
        """Over all weights."""
        return _squared_norm(self._parts)


def measure_gradients(
    model: Any,
    groups: Iterable[Sequence[ScoredAnswers]],
    log_ratios: Mapping[PromptAnswer, float],
    *,
    beta: float,
    advance: Callable[[], None] = lambda: None,
) -> list[PromptGroup]:
    """The gradients of every group's prompts, which must have two or more responses.

    log_ratios: log π_θ(y|x) − log π_ref(y|x) of each prompt's `rows`, in nats; θ is `model`.
    `advance` is called after each prompt.
    """
    measured = []
    for group in groups:
        soft, trained = _GroupSum(), _GroupSum()
        found = []
        for prompt in group:
            found.append(_measure(model, prompt, log_ratios, beta, soft, trained))
            advance()
        measured.append(PromptGroup(tuple(found), soft.result(), trained.result()))
    return measured


class _GroupSum:
    """The sums over a group's prompts that its signal and noise need."""

    def __init__(self) -> None:
        self._total = GradientSum()
        self._squared_norms: list[float] = []

    def add(self, gradient: GradientSum, factor: float) -> float:
        """Add `factor` times a prompt's gradient; returns the norm of that."""
        self._total.add(gradient.parts, factor)
        self._squared_norms.append(factor**2 * gradient.squared_norm)
        return float(self._squared_norms[-1] ** 0.5)

    def result(self) -> SignalToNoise:
        return signal_to_noise(self._squared_norms, self._total.squared_norm)


def _measure(
    model: Any,
    prompt: ScoredAnswers,
    log_ratios: Mapping[PromptAnswer, float],
    beta: float,
    soft_group: _GroupSum,
    trained_group: _GroupSum,
) -> PromptGradient:
    """The prompt's gradients, as steps of descent; they are added to its group's sums."""
    rows, num = prompt.rows, len(prompt.answers)
    own = [log_ratios[row] for row in rows]
    implicit = beta * np.array(own)
    soft_weights = pair_weights(prompt.rewards, implicit_rewards=implicit[:num])
    trained_weights, margins = _trained_weights(prompt, implicit)
    total, soft, trained = GradientSum(), GradientSum(), GradientSum()
    squared_norms = []
    for place, row in enumerate(rows):
        gradient = _gradient(model, row)
        if place < num:
            squared_norms.append(_squared_norm(gradient))
            total.add(gradient)
            soft.add(gradient, float(soft_weights[place]))
        if place in trained_weights:
            trained.add(gradient, trained_weights[place])
    return PromptGradient(
        prompt.prompt_id,
        prompt.rewards,
        tuple(own[:num]),
        float(preference_variance(np.array([prompt.rewards], np.float64))[0]),
        float(preference_variance(implicit[None, :num])[0]),
        label_gap(prompt.rewards, implicit_rewards=implicit[:num]),
        soft_group.add(soft, beta),
        beta * mean_squared_difference(squared_norms, total.squared_norm) ** 0.5,
        len(prompt.pairs),
        float(np.mean(margins)) if margins else None,
        trained_group.add(trained, beta) if margins else None,
    )


def _trained_weights(
    prompt: ScoredAnswers, implicit: Floats
) -> tuple[dict[int, float], list[float]]:
    """Number of a row → its gradient's weight in the mean over the pairs; each pair's margin."""
    answers = [row.answer for row in prompt.rows]
    weights: dict[int, float] = defaultdict(float)
    margins = []
    for pair in prompt.pairs:
        chosen, rejected = (answers.index(answer) for answer in pair)
        margins.append(float(implicit[chosen] - implicit[rejected]))
        weight = hard_label_weight(margins[-1]) / len(prompt.pairs)
        weights[chosen] += weight
        weights[rejected] -= weight
    return weights, margins


def _gradient(model: Any, row: PromptAnswer) -> "list[torch.Tensor]":
    """∇log π(y|x) by every weight."""
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return list(torch.autograd.grad(batch_logps(model, [row]).sum(), weights))


def _squared_norm(parts: "Sequence[torch.Tensor]") -> float:
    return sum(float(part.double().square().sum()) for part in parts)
