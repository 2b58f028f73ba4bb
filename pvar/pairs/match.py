"""The result of a pair rule."""

from typing import NamedTuple

from pvar.pairs.answers import RewardedAnswer


class Match(NamedTuple):
    """Two answers matched by a rule. They may still be a tie or below the margin."""

    chosen: RewardedAnswer
    rejected: RewardedAnswer
