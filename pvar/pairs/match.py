"""What a pair rule returns."""

from typing import NamedTuple

from pvar.pairs.answers import RewardedAnswer


class Match(NamedTuple):
    """Two answers that a rule puts side by side; they may still tie or miss the margin."""

    chosen: RewardedAnswer
    rejected: RewardedAnswer
