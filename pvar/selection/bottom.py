"""Lowest preference variance: the counterpart that should teach little (arXiv 2510.13022)."""

from pvar.selection.candidates import Candidates, Ranking, StrategySettings
from pvar.selection.ranking import smallest_first


def rank_bottom(candidates: Candidates, _: StrategySettings) -> Ranking:
    """Smallest PVar first."""
    return smallest_first(candidates, "pvar")
