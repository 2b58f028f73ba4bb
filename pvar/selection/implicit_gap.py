"""Implicit gap of the pair to be trained on: β·Δlog(π_θ/π_ref) of chosen minus rejected.

Smallest first are the pairs that the policy does not tell apart yet (arXiv 2508.04149); largest
first is the counterpart. It does not follow from the rewards of the selecting models: stage select
measures it by a reward model of kind implicit (`tasks/stages/gap_of_pairs.py`).
"""

from pvar.selection.strategy import Measure, Strategy, largest_first, smallest_first

IMPLICIT_GAP = Measure("implicit_gap")

IMPLICIT_GAP_SMALL = Strategy(IMPLICIT_GAP, smallest_first)
IMPLICIT_GAP_LARGE = Strategy(IMPLICIT_GAP, largest_first)
