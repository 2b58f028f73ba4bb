"""Largest difference between the best and the worst reward (arXiv 2502.14560: largest margin)."""

from pvar.selection.candidates import Candidates, Ranking, StrategySettings
from pvar.selection.ranking import largest_first


def rank_reward_gap(candidates: Candidates, _: StrategySettings) -> Ranking:
    """Largest reward gap first."""
    return largest_first(candidates, "reward_gap")
