"""Largest disagreement between reward models: active selection's classical criterion."""

from pvar.selection.candidates import Candidates, Ranking, StrategySettings
from pvar.selection.ranking import largest_first


def rank_disagreement(candidates: Candidates, _: StrategySettings) -> Ranking:
    """Largest disagreement first."""
    return largest_first(candidates, "disagreement")
