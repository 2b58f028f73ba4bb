"""The best answer against the worst; further pairs are second best against second worst, …"""

from collections.abc import Sequence

from pvar.pairs.answers import RewardedAnswer
from pvar.pairs.match import Match


def match_best_worst(answers: Sequence[RewardedAnswer], limit: int, seed: int) -> list[Match]:
    """Pair from both ends inwards; no answer is used twice."""
    num_pairs = min(limit, len(answers) // 2)
    return [Match(answers[place], answers[-1 - place]) for place in range(num_pairs)]
