"""Highest preference variance: the prompts whose DPO gradient may be large (arXiv 2510.13022)."""

from pvar.selection.candidates import Candidates, Ranking, StrategySettings
from pvar.selection.ranking import largest_first


def rank_top(candidates: Candidates, _: StrategySettings) -> Ranking:
    """Largest PVar first."""
    return largest_first(candidates, "pvar")
