"""Implicit gap of the pair to be trained on: β·Δlog(π_θ/π_ref) of chosen minus rejected.

The smallest gaps are pairs that the policy does not yet distinguish (arXiv 2508.04149); the largest
gaps are the counterpart. The gap cannot be computed from the other rewards: stage select measures
it with a reward model of kind implicit (`tasks/stages/gap_of_pairs.py`).
"""

from pvar.selection.pair_losses import mean_of_known
from pvar.selection.strategy import FloatArray, Measure, Strategy, largest_first, smallest_first


def _measure(gaps: FloatArray) -> FloatArray:
    """(P,) mean over a prompt's pairs, in implicit rewards."""
    return mean_of_known(gaps[0])


IMPLICIT_GAP = Measure(
    "implicit_gap", compute_from_gaps=_measure, implicit_models=("the tuned policy",)
)

IMPLICIT_GAP_SMALL = Strategy(IMPLICIT_GAP, smallest_first)
IMPLICIT_GAP_LARGE = Strategy(IMPLICIT_GAP, largest_first)
