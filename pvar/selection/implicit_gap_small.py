"""Smallest implicit gap: pairs that the policy does not tell apart yet (arXiv 2508.04149)."""

from pvar.selection.candidates import Candidates, Ranking, StrategySettings
from pvar.selection.ranking import smallest_first


def rank_implicit_gap_small(candidates: Candidates, _: StrategySettings) -> Ranking:
    """Smallest (most negative) implicit gap first."""
    return smallest_first(candidates, "implicit_gap")
