"""What the plan of `pvar.adaptive` finds in a pool that is scored already, and at what cost.

Axes: P prompts, K responses at most.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.adaptive import choose_prompts
from pvar.errors import ConfigError, InputError
from pvar.pairwise import as_rewards
from pvar.variance import preference_variance


class Replay(NamedTuple):
    """What the plan would have found in a pool that is scored already."""

    num_sampled: npt.NDArray[np.intp]
    """(P,) responses looked at."""
    cost_share: float
    """Those over P · K."""
    recall: float
    """Share of the plan's selection whose PVar over all K is at or above the true cut."""
    value_share: float
    """Mean PVar over all K of the plan's selection, as a share of the true top's mean."""


def replay_plan(
    rewards: npt.ArrayLike,
    *,
    cost_share: float,
    top_fraction: float = 0.1,
    round_share: float = 0.05,
    scale: float = 1.0,
) -> Replay:
    """Run the plan on a complete pool, looking at the responses from left to right.

    rewards: (P, K) finite scores, in an order that says nothing about them (shuffle each row).
    cost_share: of P · K responses to look at, from 2/K to 1; top_fraction: of prompts to select;
    round_share: of P, new responses in a round. Raises ConfigError where 2 each cost too much,
    InputError where scores are missing.
    """
    array = as_rewards(rewards)
    num_prompts, max_responses = array.shape
    if not np.isfinite(array).all():
        raise InputError("the pool has missing rewards; a replay needs all of them")
    budget = round(cost_share * array.size) - 2 * num_prompts
    if budget < 0 or cost_share > 1:
        raise ConfigError(f"cost_share is {cost_share}; expected {2 / max_responses:.3g} to 1")
    num_sampled = np.full(num_prompts, 2)
    while budget > 0:
        seen = np.arange(max_responses) < num_sampled[:, None]
        chosen = choose_prompts(
            preference_variance(array, scale=scale, mask=seen),
            num_scored=num_sampled,
            num_sampled=num_sampled,
            max_responses=max_responses,
            num_new=min(budget, max(1, round(round_share * num_prompts))),
        )
        num_sampled += chosen
        budget -= int(chosen.sum())
    found = preference_variance(
        array, scale=scale, mask=np.arange(max_responses) < num_sampled[:, None]
    )
    truth = preference_variance(array, scale=scale)
    num_top = max(1, round(top_fraction * num_prompts))
    selection = truth[np.argsort(-found, kind="stable")[:num_top]]
    top = np.sort(truth)[-num_top:]
    return Replay(
        num_sampled=num_sampled,
        cost_share=float(num_sampled.sum() / array.size),
        recall=float(np.mean(selection >= top[0])),
        value_share=float(selection.mean() / top.mean()),
    )
