"""The gate of a reward model: what held-out labels say about it, and whether it may score.

A label says which of two answers y_w, y_l to a prompt is preferred. With r the reward, the margin
of a label is r(y_w) − r(y_l). The model agrees with the label if its margin is positive (a tie
counts ½), and by Bradley and Terry's model, which reward models are trained with (arXiv 2203.02155,
eq. 1), it gives the label the probability p = σ(margin / τ), with τ the reward scale.

    accuracy      how many of the new labels the model agrees with
    change        its accuracy minus that of the model it would replace, paired by label; on new
                  labels, and on labels of earlier batches
    Brier score   mean (1 − p)² over the new labels: 0 is certain and right, ¼ is p = ½ always, 1 is
                  certain and wrong (Brier, Monthly Weather Review 78, 1950)

PVar takes p for the preference probability, so a model that ranks well and is far too certain would
distort it. The Brier score sees that and accuracy does not: it is a proper score, the lowest for
the true probabilities.

What could be wrong must be ruled out, as with ability (decision 0011): every check is on the
unfavourable end of an interval over prompts (`pvar/evaluation/paired.py`). So a few labels do not
pass, whatever they show. Of labels of which a share f was flipped at random, a model with the
accuracy a on true labels agrees with a(1 − f) + (1 − a)f ≤ 1 − f: `min_accuracy` bounds the share
of wrong labels, however many there are. A batch that teaches the opposite for some prompts loses on
earlier labels of prompts like them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.evaluation.paired import Interval, mean_interval, paired_difference, paired_win_rate
from pvar.gate import Check, GateDecision
from pvar.reward_training import RewardGateConfig

NO_EARLIER_LABELS = "no earlier labels to compare on"

NUM_RESAMPLES = 10_000


class LabelMargin(NamedTuple):
    """A held-out label, and the margins that two reward models give it."""

    prompt_id: str
    source: str
    """Name of the data set or file of the label."""
    is_earlier: bool
    """Whether the label is of an earlier batch."""
    margin: float | None
    """Chosen minus rejected reward of the new model; None if it gives no reward to one of them."""
    opponent_margin: float | None
    """The same of the model that would be replaced."""


class AccuracyChange(NamedTuple):
    """Accuracies of both models on the same labels, in [0, 1]; NaN if nothing was measured."""

    num_labels: int
    """Labels with margins of both models."""
    accuracy: float
    opponent_accuracy: float
    change: float
    change_lower: float
    change_upper: float


class RewardFigures(NamedTuple):
    """What held-out labels say about a reward model. NaN is not measured."""

    num_new: int
    """New held-out labels, with and without margins."""
    num_earlier: int
    coverage: float
    """Fraction of all held-out labels with a margin of the new model."""
    accuracy: float
    """On new labels, in [0, 1]."""
    accuracy_lower: float
    accuracy_upper: float
    brier: float
    """On new labels, in [0, 1]."""
    brier_lower: float
    brier_upper: float
    overconfidence: float
    """Mean probability of the answer that the model prefers, minus its accuracy on new labels."""
    on_new: AccuracyChange
    on_earlier: AccuracyChange | None
    """None without earlier labels."""


def measure_margins_of_labels(
    labels: Sequence[LabelMargin], *, reward_scale: float, confidence: float, seed: int
) -> RewardFigures:
    """The figures of a reward model. New labels, and earlier ones, have one row per prompt.

    `reward_scale` is τ, in units of reward. The same labels and seed give the same figures.
    """
    new = [label for label in labels if not label.is_earlier]
    earlier = [label for label in labels if label.is_earlier]
    margins = _known([label.margin for label in new])
    share = paired_win_rate(_agreement(margins), confidence=confidence, seed=seed)
    squares = _probabilities(-margins / reward_scale) ** 2  # 1 − p = σ(−margin / τ)
    brier = _interval(squares, confidence, seed)
    certainty = _probabilities(np.abs(margins) / reward_scale)
    return RewardFigures(
        num_new=len(new),
        num_earlier=len(earlier),
        coverage=_share(sum(label.margin is not None for label in labels), len(labels)),
        accuracy=share.win_rate,
        accuracy_lower=share.ci_lower,
        accuracy_upper=share.ci_upper,
        brier=_mean(squares),
        brier_lower=brier.lower,
        brier_upper=brier.upper,
        overconfidence=_mean(certainty) - share.win_rate,
        on_new=_change(new, confidence, seed),
        on_earlier=_change(earlier, confidence, seed) if earlier else None,
    )


def decide_on_reward_model(
    figures: RewardFigures, gate: RewardGateConfig, *, confidence: float
) -> GateDecision:
    """Apply every check; all must pass. Accuracy must be above its bound and the Brier score below.

    Without earlier labels there is no check on them, and none with so few that two models which
    agree on all of them would not pass: a refused batch adds no earlier labels, so no later batch
    would pass either. The decision's note says so. `confidence` is that of the figures' intervals.
    """
    changes = {"accuracy_change_lower": figures.on_new.change_lower}
    note = _why_earlier_are_not_compared(figures, gate, confidence)
    if figures.on_earlier is not None and not note:
        changes["earlier_accuracy_change_lower"] = figures.on_earlier.change_lower
    bound = 0 - gate.max_accuracy_loss
    checks = (
        Check(
            "coverage", figures.coverage, gate.min_coverage, figures.coverage >= gate.min_coverage
        ),
        Check(
            "accuracy_lower",
            figures.accuracy_lower,
            gate.min_accuracy,
            figures.accuracy_lower > gate.min_accuracy,
        ),
        Check(
            "brier_upper", figures.brier_upper, gate.max_brier, figures.brier_upper < gate.max_brier
        ),
        *(Check(name, value, bound, value >= bound) for name, value in changes.items()),
    )
    return GateDecision(
        all(check.passed for check in checks),
        checks,
        note,
    )


def _why_earlier_are_not_compared(
    figures: RewardFigures, gate: RewardGateConfig, confidence: float
) -> str:
    """Empty if they are: enough for two models that agree on all of them to pass.

    No number is enough at a maximum loss of 0, where only a better model passes.
    """
    if figures.on_earlier is None:
        return NO_EARLIER_LABELS
    loss = gate.max_accuracy_loss
    equal = np.zeros(figures.num_earlier)
    change = paired_difference(equal, equal, confidence=confidence, seed=0)  # exact, not drawn
    if loss == 0 or change.ci_lower >= -loss:
        return ""
    return (
        f"{figures.num_earlier} earlier labels are too few to compare on: even models that agree "
        f"on all of them would not rule out a loss of more than {loss:g}"
    )


def refusal_reasons(figures: RewardFigures, decision: GateDecision) -> tuple[str, ...]:
    """One sentence for each check that failed."""
    texts = {
        "coverage": (
            "{value:.3f} of the held-out labels have rewards, at least {bound:g} must: raise "
            "reward_training.train.max_length_tokens if answers are too long"
        ),
        "accuracy_lower": (
            f"accuracy on {figures.num_new} new held-out labels is {figures.accuracy:.3f}, and its "
            "lower bound {value:.3f} is not above {bound:g}: labels may be wrong, or too few"
        ),
        "brier_upper": (
            f"the Brier score on new held-out labels is {figures.brier:.3f}, and its upper bound "
            "{value:.3f} is not below {bound:g}: the rewards are too certain or too often wrong "
            f"(certainty exceeds accuracy by {figures.overconfidence:.3f})"
        ),
        "accuracy_change_lower": (
            f"accuracy on new labels changes by {figures.on_new.change:+.3f} against the model "
            "that would be replaced, and the lower bound {value:+.3f} does not rule out a loss of "
            "more than {loss:g}"
        ),
    }
    if figures.on_earlier is not None:
        texts["earlier_accuracy_change_lower"] = (
            f"accuracy on {figures.on_earlier.num_labels} earlier labels changes by "
            f"{figures.on_earlier.change:+.3f} against the model that would be replaced, and the "
            "lower bound {value:+.3f} does not rule out a loss of more than {loss:g}"
        )
    return tuple(
        texts[check.name].format(value=check.value, bound=check.bound, loss=0 - check.bound)
        for check in decision.checks
        if not check.passed
    )


def _change(labels: Sequence[LabelMargin], confidence: float, seed: int) -> AccuracyChange:
    both = [
        (label.margin, label.opponent_margin)
        for label in labels
        if label.margin is not None and label.opponent_margin is not None
    ]
    ours, theirs = (_agreement(np.array(margins, dtype=np.float64)) for margins in _columns(both))
    found = paired_difference(ours, theirs, confidence=confidence, seed=seed)
    return AccuracyChange(
        num_labels=len(both),
        accuracy=_mean(ours),
        opponent_accuracy=_mean(theirs),
        change=found.difference,
        change_lower=found.ci_lower,
        change_upper=found.ci_upper,
    )


def _columns(rows: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [ours for ours, _ in rows], [theirs for _, theirs in rows]


def _known(margins: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([margin for margin in margins if margin is not None], dtype=np.float64)


def _agreement(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the labelled answer is preferred, 0 where the other one is, ½ for a tie."""
    return (np.sign(margins) + 1) / 2


def _probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """σ, without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def _interval(values: NDArray[np.float64], confidence: float, seed: int) -> Interval:
    return mean_interval(values, confidence=confidence, num_resamples=NUM_RESAMPLES, seed=seed)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else math.nan


def _share(num: int, num_all: int) -> float:
    return num / num_all if num_all else math.nan
