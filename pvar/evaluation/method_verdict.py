"""The verdict about a method, and how many trainings or prompts would change it.

    helps                         the interval of the difference lies above 0
    hurts                         it lies below 0
    no difference above δ         it lies within −δ to δ
    not enough trainings          anything else, and always below five trainings in either arm

Below five trainings the spread of trainings is hardly known: two or three of them can agree by
luck. A study that compares several arms with its control makes several claims, so the level of each
interval is Bonferroni's: all of them together claim a difference that is none in at most
`ERROR_RATE` of the studies. In simulation (tests/benchmarks/method_claims.py) an interval excludes
0 somewhat more often than its level says where the arms' trainings scatter unequally, and the more
so the higher its level is: so the level aims at less, and at still less from four claims on
(`nominal_error_rate`).
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from pvar.evaluation.trainings import Floats, MethodDifference, Spread, method_difference

MethodVerdict = Literal["helps", "hurts", "no difference above δ", "not enough trainings"]

ERROR_RATE = 0.05
"""Share of studies without a true difference that may claim one."""
MIN_TRAININGS = 5
"""Trainings in each arm below which nothing is claimed."""
_MOST = 10_000
"""More trainings or prompts than this are not looked for."""


def nominal_error_rate(num_claims: int) -> float:
    """What the intervals of a study together aim at, so that ERROR_RATE holds in simulation."""
    return 0.04 if num_claims <= 3 else 0.03


class MethodClaim(NamedTuple):
    """What a study says about an arm against its control."""

    verdict: MethodVerdict
    difference: MethodDifference
    """The difference with its simultaneous interval."""
    confidence: float
    """Level of that interval, over all claims of the study."""
    trainings_needed: int | None
    """Trainings in each arm for an interval of the wanted width on these prompts; None if no number
    of trainings gives it, or the spread is not known."""
    prompts_needed: int | None
    """Prompts for that width with these trainings; None likewise."""


def claim(
    arm: Floats, control: Floats, *, num_claims: int, delta: float, width: float, seed: int
) -> MethodClaim:
    """The verdict on an arm, from preferences of shape (num_trainings, num_prompts).

    `num_claims` is the number of arms that the study compares with a control; `delta` the smallest
    difference that matters; `width` the width of the interval that `trainings_needed` and
    `prompts_needed` are for (both in preferences, 0.02 is two points); `seed` as in
    `method_difference`, whose errors these are.
    """
    confidence = 1 - nominal_error_rate(num_claims) / num_claims
    found = method_difference(arm, control, confidence=confidence, seed=seed)
    # Trainings that are equal to the last bit are one: their seeds changed nothing.
    num_distinct = min(len(np.unique(each, axis=0)) for each in (arm, control))
    by_trainings, by_prompts = _needed(found, min(len(arm), len(control)), confidence, width)
    return MethodClaim(
        _verdict(found, num_distinct, delta), found, confidence, by_trainings, by_prompts
    )


def _verdict(found: MethodDifference, num_trainings: int, delta: float) -> MethodVerdict:
    if num_trainings < MIN_TRAININGS or not found.over_trainings:
        return "not enough trainings"
    if found.ci_lower > 0:
        return "helps"
    if found.ci_upper < 0:
        return "hurts"
    if -delta < found.ci_lower and found.ci_upper < delta:
        return "no difference above δ"
    return "not enough trainings"


def _needed(
    found: MethodDifference, num_trainings: int, confidence: float, width: float
) -> tuple[int | None, int | None]:
    if found.spread is None:
        return None, None
    spread, prompts = found.spread, found.num_prompts
    by_trainings = _smallest(
        lambda number: _width(spread, number, prompts, confidence), MIN_TRAININGS, width
    )
    by_prompts = _smallest(
        lambda number: _width(spread, num_trainings, number, confidence), 2, width
    )
    return by_trainings, by_prompts


def _smallest(width_of: Callable[[int], float], least: int, width: float) -> int | None:
    """The smallest number with at most that width, by bisection: the width falls with it."""
    if width_of(_MOST) > width:
        return None
    low, high = least, _MOST
    while low < high:
        middle = (low + high) // 2
        if width_of(middle) <= width:
            high = middle
        else:
            low = middle + 1
    return low


def _width(spread: Spread, num_trainings: int, num_prompts: int, confidence: float) -> float:
    """Expected width of the interval, with Satterthwaite's degrees of freedom."""
    from scipy.stats import t

    variance = spread.variance((num_trainings, num_trainings), num_prompts)
    of_trainings = [
        (training + interaction / num_prompts) / num_trainings
        for training, interaction in zip(spread.of_trainings, spread.of_interaction, strict=True)
    ]
    of_prompts = variance - sum(spread.of_trainings) / num_trainings
    squares = of_prompts**2 / (num_prompts - 1) + sum(
        part**2 / (num_trainings - 1) for part in of_trainings
    )
    degrees = variance**2 / squares if squares > 0 else math.inf
    return 2 * float(t.ppf((1 + confidence) / 2, degrees)) * math.sqrt(variance)
