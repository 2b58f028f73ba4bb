"""The list of strategies: what can be chosen, and which file does it."""

from collections.abc import Callable

from pvar.selection.all import rank_all
from pvar.selection.bottom import rank_bottom
from pvar.selection.candidates import Candidates, Ranking, StrategyName, StrategySettings
from pvar.selection.disagreement import rank_disagreement
from pvar.selection.implicit_gap_large import rank_implicit_gap_large
from pvar.selection.implicit_gap_small import rank_implicit_gap_small
from pvar.selection.random import rank_random
from pvar.selection.reward_gap import rank_reward_gap
from pvar.selection.reward_variance import rank_reward_variance
from pvar.selection.stratified import rank_stratified
from pvar.selection.threshold import rank_threshold
from pvar.selection.top import rank_top

STRATEGIES: dict[StrategyName, Callable[[Candidates, StrategySettings], Ranking]] = {
    "top": rank_top,
    "bottom": rank_bottom,
    "random": rank_random,
    "all": rank_all,
    "threshold": rank_threshold,
    "stratified": rank_stratified,
    "reward_gap": rank_reward_gap,
    "reward_variance": rank_reward_variance,
    "implicit_gap_small": rank_implicit_gap_small,
    "implicit_gap_large": rank_implicit_gap_large,
    "disagreement": rank_disagreement,
}

SEEDED: frozenset[StrategyName] = frozenset({"random", "stratified"})
"""Strategies that draw. For all others the seed decides nothing, and is no part of the identity."""
