"""The parts of a strategy: a measure of every prompt, and an order of the prompts.

    reward_gap.py    REWARD_GAP = Strategy(Measure("reward_gap", ...), largest_first)
    strategies.py    "reward_gap": REWARD_GAP

Axes: M reward models, P prompts, N responses; I implicit reward models, J pairs of a prompt. NaN is
missing.
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
"""Prompt ids: all strings or all integers."""


@dataclass(frozen=True, eq=False)
class RewardMatrix:
    """The rewards of the responses that can be trained on."""

    rewards: FloatArray
    """(M, P, N); NaN if a response is missing or unusable."""
    scales: tuple[float, ...]
    """(M,) reward scale τ of each model, in units of its rewards."""
    combination: CombinationRule = "mean_pvar"
    """How the results of several models are combined into one PVar."""
    num_tokens: FloatArray | None = None
    """(P, N) length of each response in tokens; None if only the rewards are known."""

    @cached_property
    def scaled(self) -> FloatArray:
        """(P, N) mean over the models of reward / scale; NaN if one of them has no reward, or if it
        is too large for a float."""
        with np.errstate(over="ignore", invalid="ignore"):  # of rewards near the largest float
            mean: FloatArray = np.mean(self.rewards / np.array(self.scales)[:, None, None], axis=0)
            return np.where(np.isfinite(mean), mean, np.nan)

    @cached_property
    def num_rewards(self) -> NDArray[np.intp]:
        """(P,) responses that every model has scored."""
        return np.asarray(np.isfinite(self.rewards).all(axis=0).sum(axis=1))


class Measure(NamedTuple):
    """A number per prompt, by which strategies order the prompts."""

    name: str
    """Name of the measure and of its column in files."""
    compute: Callable[[RewardMatrix], FloatArray] | None = None
    """(P,) from the rewards, NaN is missing. None if rewards are not enough to compute it."""
    min_models: int = 1
    """Minimum number of reward models."""
    needs_num_tokens: bool = False
    """Whether `compute` also needs the lengths of the responses."""
    compute_from_gaps: Callable[[FloatArray], FloatArray] | None = None
    """(P,) from the implicit gaps (I, P, J) of the pairs to be trained on: the difference of the
    implicit rewards of chosen and rejected, NaN where a prompt has no such pair."""
    implicit_models: tuple[str, ...] = ()
    """What each reward model of kind implicit stands for from which the gaps are computed."""


class StrategySettings(NamedTuple):
    """Settings that some strategies need besides the measure."""

    seed: int
    threshold: float | None = None
    """Minimum PVar, for the strategy `threshold`."""


class Strategy(NamedTuple):
    """How prompts are selected. All differences between strategies are declared here."""

    measure: Measure
    """The measure of the strategy. Prompts without it are counted."""
    rank: Callable[[IdArray, FloatArray, StrategySettings], FloatArray]
    """(prompt ids, measure, settings) → priority, all (P,): highest first; NaN is not selected."""
    has_cut: bool = True
    """Whether the order depends on the measure alone, so that a cut value and ties exist."""
    draws: bool = False
    """Whether the strategy uses the seed. Otherwise the seed is not hashed."""
    budget: Literal["fills", "is limited by", "ignores"] = "fills"
    """`fills`: selects as many prompts as the budget allows, so that a random control of the same
    size exists."""
    wants_high_pvar: bool = False
    """Whether it selects the highest PVar, so that it can be combined with adaptive sampling."""


def _measure_pvar(rewards: RewardMatrix) -> FloatArray:
    return combine_preference_variance(
        rewards.rewards, scales=rewards.scales, rule=rewards.combination
    )


PVAR = Measure("pvar", _measure_pvar)
"""Preference variance, in [0, ¼] (`pvar/variance.py`; for several models, `pvar/combine.py`)."""


def largest_first(_: IdArray, values: FloatArray, __: StrategySettings) -> FloatArray:
    """Take the largest values of the measure first."""
    return values


def smallest_first(_: IdArray, values: FloatArray, __: StrategySettings) -> FloatArray:
    """Take the smallest values of the measure first."""
    return -values
