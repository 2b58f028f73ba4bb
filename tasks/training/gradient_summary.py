"""What the gradients of many prompts say about PVar: correlation, bound, drift, and a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pvar.correlation import CorrelationTable, correlation_table
from tasks.training.prompt_gradients import PromptGradient


class Spearman(NamedTuple):
    """Spearman's ρ of a quantity and PVar over prompts, with its 95 % interval.

    NaN where the quantity is constant, or known of fewer than three (interval: four) prompts.
    """

    rho: float
    lower: float
    upper: float


class GradientSummary(NamedTuple):
    """The measured prompts together."""

    soft: Spearman
    """PVar and `soft_norm`: what the theorem is about, at the starting policy."""
    trained: Spearman
    """PVar and `trained_norm`, over the prompts with a pair: an observation."""
    policy_pvar: Spearman
    """PVar and the policy's own PVar; NaN at the starting policy, whose own is 0 everywhere."""
    drift: float | None
    """Mean of |policy_pvar − pvar| over prompts; None at the starting policy."""
    num_prompts: int
    num_within_bound: int
    """Prompts whose `soft_norm` is within its bound; the theorem says all."""
    tightness: tuple[float, float, float]
    """Minimum, median and maximum of soft_norm / bound; NaN where every bound is 0."""
    num_trained: int
    """Prompts with a pair."""
    num_trained_beyond_bound: int
    """Those whose `trained_norm` is above the bound of `soft_norm`, which is not theirs."""


def summarise_gradients(gradients: Sequence[PromptGradient]) -> GradientSummary:
    """Rank correlations over the prompts, how often and how tightly the bound holds, the drift."""
    trained = [g for g in gradients if g.trained_norm is not None]
    table = correlation_table(
        {
            "pvar": [g.pvar for g in gradients],
            "soft": [g.soft_norm for g in gradients],
            "trained": [np.nan if g.trained_norm is None else g.trained_norm for g in gradients],
            "policy_pvar": [g.policy_pvar for g in gradients],
        }
    )
    tightness = np.array([g.tightness for g in gradients if not np.isnan(g.tightness)] or [np.nan])
    return GradientSummary(
        soft=_with_pvar(table, "soft"),
        trained=_with_pvar(table, "trained"),
        policy_pvar=_with_pvar(table, "policy_pvar"),
        drift=_drift(gradients),
        num_prompts=len(gradients),
        num_within_bound=sum(g.is_within_bound for g in gradients),
        tightness=(float(tightness.min()), float(np.median(tightness)), float(tightness.max())),
        num_trained=len(trained),
        num_trained_beyond_bound=sum(
            g.trained_norm > g.bound for g in trained if g.trained_norm is not None
        ),
    )


def _drift(gradients: Sequence[PromptGradient]) -> float | None:
    if not any(g.policy_pvar for g in gradients):
        return None
    return float(np.mean([abs(g.policy_pvar - g.pvar) for g in gradients]))


def _with_pvar(table: CorrelationTable, name: str) -> Spearman:
    here = (table.names.index("pvar"), table.names.index(name))
    return Spearman(
        *(
            float(matrix[here])
            for matrix in (table.spearman, table.spearman_lower, table.spearman_upper)
        )
    )


def draw_gradients(gradients: Sequence[PromptGradient], path: Path) -> None:
    """Both norms and the bound against PVar, in the format of the file's suffix."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    pvar = [gradient.pvar for gradient in gradients]
    norms, bounds = (
        [getattr(gradient, name) for gradient in gradients] for name in ("soft_norm", "bound")
    )
    trained = [
        (gradient.pvar, gradient.trained_norm)
        for gradient in gradients
        if gradient.trained_norm is not None
    ]
    axes.vlines(pvar, norms, bounds, color="0.85", zorder=1)
    axes.scatter(pvar, bounds, marker="_", color="0.45", label="bound of soft labels")
    axes.scatter(pvar, norms, s=18, color="#1f6feb", label="soft labels")
    if trained:
        x, y = zip(*trained, strict=True)
        axes.scatter(x, y, s=18, marker="x", color="#d1242f", label="pairs as trained")
    found = summarise_gradients(gradients)
    axes.set_title(
        f"Spearman's ρ with PVar: {found.soft.rho:.2f} (soft labels), {found.trained.rho:.2f} "
        f"(pairs as trained)\nsoft labels within the bound: {found.num_within_bound} of "
        f"{len(gradients)} prompts",
        fontsize=10,
    )
    axes.set_xlabel("preference variance by the rewards")
    axes.set_ylabel("norm of the DPO gradient")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
