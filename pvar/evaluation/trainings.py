"""Difference of two methods, each with several trainings, judged on the same prompts.

A claim about a method (a selection, a loss) is about trainings that were not made and prompts that
were not asked. So both are drawn at random, and they are crossed: every model of either arm answers
every prompt. With y the preference for a model on a prompt, T trainings and P prompts,

    V = V_prompts + Σ_arms V_trainings − Σ_arms MS_e / (P · T)
    V_prompts    variance over prompts of the difference of the arms' means / P
    V_trainings  variance over an arm's trainings of their means / T
    MS_e         mean square of an arm's interaction of training and prompt

(both variances contain the interaction, so it is taken off once; two-way random effects). V is
never less than either part. The arms' variances are not pooled: one method may scatter more than
the other. Degrees of freedom are Satterthwaite's for the sum of the parts, V² / (Σ V_trainings² /
(T − 1) + V_prompts² / (P − 1)), and the interval is t's. Where trainings dominate, this is Welch's
test of the trainings' means; where they do not scatter, it is the interval over prompts, somewhat
wide. Obuchowski & Rockette (1995) with Hillis' degrees of freedom (Statistics in Medicine 26, 2007)
is the same problem in diagnostic studies; tests/benchmarks/method_claims.py compares the two.

With one training per arm the spread of trainings is unknown, and the interval is over prompts only.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pvar.errors import InputError
from pvar.evaluation.paired import paired_difference

Floats = NDArray[np.float64]

_SMALLEST = 1e-12
"""A variance below this is rounding."""


class Spread(NamedTuple):
    """Estimated variances of one observation, in squared preferences; none is below 0."""

    of_prompts: float
    """Of a prompt's difference of the arms, beyond what its trainings scatter."""
    of_trainings: tuple[float, float]
    """Of a training's mean over all prompts, per arm."""
    of_interaction: tuple[float, float]
    """Of one preference, beyond training and prompt, per arm."""

    def variance(self, num_trainings: tuple[float, float], num_prompts: float) -> float:
        """Variance of the difference with so many trainings in each arm, and prompts."""
        parts = zip(self.of_trainings, self.of_interaction, num_trainings, strict=True)
        return self.of_prompts / num_prompts + sum(
            (training + interaction / num_prompts) / number
            for training, interaction, number in parts
        )


class MethodDifference(NamedTuple):
    """Mean preference of arm a minus arm b, in [−1, 1], over prompts judged for every model."""

    difference: float
    """NaN if no prompt is judged for every model."""
    ci_lower: float
    ci_upper: float
    over_trainings: bool
    """Whether the interval contains the spread of trainings (at least two in each arm)."""
    degrees_of_freedom: float
    """NaN if the interval is over prompts only."""
    num_prompts: int
    num_wanted: int
    spread: Spread | None = None
    """What the variance consists of; None if the interval is over prompts only."""


def method_difference(
    a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95, seed: int
) -> MethodDifference:
    """Difference of two arms with its interval over prompts and trainings.

    `a` and `b` hold preferences in [0, 1] (½ is a tie, NaN is not judged), of shape (num_trainings,
    num_prompts); column i of both is the same prompt. A prompt that lacks any model is left out.
    `seed` is that of the bootstrap, where the interval is over prompts only. Raises InputError for
    other shapes and for values outside [0, 1].
    """
    arms = [_checked(arm) for arm in (a, b)]
    if arms[0].shape[1] != arms[1].shape[1]:
        raise InputError(
            f"the arms have {arms[0].shape[1]} and {arms[1].shape[1]} prompts; join them by prompt "
            "id first"
        )
    num_wanted = arms[0].shape[1]
    judged = ~np.isnan(np.vstack(arms)).any(axis=0)
    arms = [arm[:, judged] for arm in arms]
    num_prompts = int(judged.sum())
    of_prompts = [arm.mean(axis=0) for arm in arms]
    counts = num_prompts, num_wanted
    if num_prompts < 2 or min(len(arm) for arm in arms) < 2:
        return _over_prompts(of_prompts, counts, confidence, seed)
    differences = of_prompts[0] - of_prompts[1]
    variance, degrees = _variance(arms, differences)
    if variance < _SMALLEST:
        return _over_prompts(of_prompts, counts, confidence, seed)
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, degrees)) * math.sqrt(variance)
    difference = float(differences.mean())
    return MethodDifference(
        difference,
        max(-1.0, difference - half),
        min(1.0, difference + half),
        over_trainings=True,
        degrees_of_freedom=degrees,
        num_prompts=num_prompts,
        num_wanted=num_wanted,
        spread=_spread(arms, differences),
    )


def method_mean(arm: ArrayLike, *, confidence: float = 0.95, seed: int) -> MethodDifference:
    """Mean preference of one arm with its interval over prompts and trainings, as above.

    `arm` has the shape (num_trainings, num_prompts). The figures are means in [0, 1].
    """
    values = np.asarray(arm, dtype=np.float64)
    zero = np.where(np.isnan(values), math.nan, 0.0)
    return method_difference(values, zero, confidence=confidence, seed=seed)


def _over_prompts(
    of_prompts: list[Floats], counts: tuple[int, int], confidence: float, seed: int
) -> MethodDifference:
    plain = paired_difference(*of_prompts, confidence=confidence, seed=seed)
    num_prompts, num_wanted = counts
    return MethodDifference(
        plain.difference if num_prompts else math.nan,
        plain.ci_lower,
        plain.ci_upper,
        over_trainings=False,
        degrees_of_freedom=math.nan,
        num_prompts=num_prompts,
        num_wanted=num_wanted,
    )


def _checked(arm: ArrayLike) -> Floats:
    values = np.asarray(arm, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"an arm has the shape {values.shape}; give (num_trainings, num_prompts)")
    if num_outside := int(np.sum((values < 0) | (values > 1))):
        raise InputError(
            f"{num_outside} of {values.size} preferences are outside [0, 1]; they must be "
            "probabilities that the model is better"
        )
    return values


def _variance(arms: list[Floats], differences: Floats) -> tuple[float, float]:
    """V and its degrees of freedom; `differences` are those of the arms' means, per prompt."""
    num_prompts = differences.size
    of_prompts = float(differences.var(ddof=1)) / num_prompts
    of_trainings: list[float] = [float(arm.mean(axis=1).var(ddof=1)) / len(arm) for arm in arms]
    interaction = sum(_interaction(arm) / (num_prompts * len(arm)) for arm in arms)
    trainings = sum(of_trainings)
    variance = float(max(of_prompts + trainings - interaction, of_prompts, trainings))
    spread: float = of_prompts**2 / (num_prompts - 1) + sum(
        part**2 / (len(arm) - 1) for part, arm in zip(of_trainings, arms, strict=True)
    )
    return variance, variance**2 / spread if spread > 0 else math.inf


def _spread(arms: list[Floats], differences: Floats) -> Spread:
    """The variances whose sum, weighted by the design, is V. Negative estimates become 0."""
    num_prompts = differences.size
    first, second = (_interaction(arm) for arm in arms)
    scatter = (
        max(0.0, float(arm.mean(axis=1).var(ddof=1)) - interaction / num_prompts)
        for arm, interaction in zip(arms, (first, second), strict=True)
    )
    of_prompts = float(differences.var(ddof=1)) - first / len(arms[0]) - second / len(arms[1])
    return Spread(max(0.0, of_prompts), (next(scatter), next(scatter)), (first, second))


def _interaction(arm: Floats) -> float:
    """Mean square of what neither the training nor the prompt explains."""
    degrees = float((arm.shape[0] - 1) * (arm.shape[1] - 1))
    residuals = arm - arm.mean(axis=1, keepdims=True) - arm.mean(axis=0, keepdims=True) + arm.mean()
    return float((residuals**2).sum()) / degrees
