"""The best answer against random others: rejected answers of every quality."""

from collections.abc import Sequence
from hashlib import blake2b

from pvar.pairs.answers import RewardedAnswer
from pvar.pairs.match import Match


def match_best_random(answers: Sequence[RewardedAnswer], limit: int, seed: int) -> list[Match]:
    """Order the others by a hash of (seed, response id), independent of the row order."""

    def key(answer: RewardedAnswer) -> bytes:
        return blake2b(f"{seed}\0{answer.response_id}".encode()).digest()

    return [Match(answers[0], other) for other in sorted(answers[1:], key=key)[:limit]]
