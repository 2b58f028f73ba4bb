"""What a strategy is made of: a measure of every prompt, and an order of the prompts by it.

    reward_gap.py    REWARD_GAP = Strategy(Measure("reward_gap", ...), largest_first)
    strategies.py    "reward_gap": REWARD_GAP

Axes: M reward models, P prompts, N responses. NaN is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.combine import CombinationRule, combine_preference_variance

FloatArray = NDArray[np.floating[Any]]
IdArray = NDArray[Any]
"""Prompt ids: strings or integers, all of one kind."""


@dataclass(frozen=True, eq=False)
class RewardMatrix:
    """The rewards of the responses that can be trained on."""

    rewards: FloatArray
    """(M, P, N); NaN where a response is missing or cannot be used."""
    scales: tuple[float, ...]
    """(M,) reward scale τ of each model, in units of its rewards."""
    combination: CombinationRule = "mean_pvar"
    """How several models make one PVar."""

    @cached_property
    def scaled(self) -> FloatArray:
        """(P, N) mean over the models of reward / scale; NaN where one of them has no reward."""
        mean: FloatArray = np.mean(self.rewards / np.array(self.scales)[:, None, None], axis=0)
        return mean

    @cached_property
    def num_rewards(self) -> NDArray[np.intp]:
        """(P,) responses that every model has scored."""
        return np.asarray(np.isfinite(self.rewards).all(axis=0).sum(axis=1))


class Measure(NamedTuple):
    """A number of every prompt that strategies order by."""

    name: str
    """Also the name of its column in files."""
    compute: Callable[[RewardMatrix], FloatArray] | None = None
    """(P,) from the rewards, NaN where missing. None: it does not follow from the rewards."""
    min_models: int = 1
    """Reward models that it needs at least."""


class StrategySettings(NamedTuple):
    """What some strategies need beside the measure."""

    seed: int
    threshold: float | None = None
    """Least PVar, for the strategy `threshold`."""


class Strategy(NamedTuple):
    """How prompts are chosen; everything else that differs between strategies is declared here."""

    measure: Measure
    """What it looks at; prompts without this measure are counted."""
    rank: Callable[[IdArray, FloatArray, StrategySettings], FloatArray]
    """(prompt ids, measure, settings) → priority, all (P,): higher is taken first, NaN never."""
    has_cut: bool = True
    """The measure decides alone, so that a cut value and ties at it mean something."""
    draws: bool = False
    """It uses the seed, which for all others is no part of the identity."""
    budget: Literal["fills", "is limited by", "ignores"] = "fills"
    """`fills`: takes as many prompts as the budget allows, so that random ones can match them."""
    wants_high_pvar: bool = False
    """It takes the highest PVar: adaptive sampling may leave out what a first round finds low."""


def _measure_pvar(rewards: RewardMatrix) -> FloatArray:
    return combine_preference_variance(
        rewards.rewards, scales=rewards.scales, rule=rewards.combination
    )


PVAR = Measure("pvar", _measure_pvar)
"""Preference variance, in [0, ¼] (`pvar/variance.py`, over several models `pvar/combine.py`)."""


def largest_first(_: IdArray, values: FloatArray, __: StrategySettings) -> FloatArray:
    """Take the largest values of the measure first."""
    return values


def smallest_first(_: IdArray, values: FloatArray, __: StrategySettings) -> FloatArray:
    """Take the smallest values of the measure first."""
    return -values
