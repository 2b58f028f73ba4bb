"""The best answer against the one whose reward is nearest to μ − 2σ (arXiv 2502.16825).

With many samples the very worst answer teaches less than a typically bad one. μ and σ are the mean
and the (population) standard deviation of the prompt's usable rewards. No reward of n lies further
below the mean than σ√(n − 1), so with five answers or fewer this is the worst answer.
"""

from collections.abc import Sequence
from statistics import fmean, pstdev

from pvar.pairs.answers import RewardedAnswer
from pvar.pairs.match import Match


def match_max_mu_minus_2sigma(
    answers: Sequence[RewardedAnswer], limit: int, seed: int
) -> list[Match]:
    """Further pairs use the next nearest answers; of two equally near, the worse comes first."""
    rewards = [answer.reward for answer in answers]
    target = fmean(rewards) - 2 * pstdev(rewards)

    def key(answer: RewardedAnswer) -> tuple[float, float, str]:
        return abs(answer.reward - target), answer.reward, answer.response_id

    return [Match(answers[0], other) for other in sorted(answers[1:], key=key)[:limit]]
