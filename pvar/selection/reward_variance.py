"""Largest variance of the rewards: what PVar tends to when the reward scale is small."""

from pvar.selection.candidates import Candidates, Ranking, StrategySettings
from pvar.selection.ranking import largest_first


def rank_reward_variance(candidates: Candidates, _: StrategySettings) -> Ranking:
    """Largest reward variance first."""
    return largest_first(candidates, "reward_variance")
