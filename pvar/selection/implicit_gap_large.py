"""Largest implicit reward gap: pairs that the policy tells apart best; counterpart of the small."""

from pvar.selection.candidates import Candidates, Ranking, StrategySettings
from pvar.selection.ranking import largest_first


def rank_implicit_gap_large(candidates: Candidates, _: StrategySettings) -> Ranking:
    """Largest implicit gap first."""
    return largest_first(candidates, "implicit_gap")
