"""Pairs of a chosen and a rejected answer. Each file has one rule.

    best_worst            highest against lowest reward
    best_random           highest reward against random others
    max_mu_minus_2sigma   highest reward against the one nearest to μ − 2σ (arXiv 2502.16825)
    original              the data set's own chosen and rejected

The two texts and the two rewards of a pair always differ. A rejected pair has one of these reasons:
too_few_answers, tie, margin; for `original` also no_annotation, empty, missing_reward,
overall_score_bug and overall_score_unchecked.
"""

from pvar.pairs.make import ORIGINAL, RULES, Pairing, PairRule, make_pairs
from pvar.pairs.original import Annotation

__all__ = ["ORIGINAL", "RULES", "Annotation", "PairRule", "Pairing", "make_pairs"]
