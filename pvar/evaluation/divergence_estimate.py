"""KL divergence of a trained policy from the policy it started from, estimated on its own answers.

    KL(π_θ ‖ π_ref) = E_x E_{y ~ π_θ(·|x)} [log π_θ(y|x) − log π_ref(y|x)]

in nats per answer: the quantity that DPO's objective penalises, weighted by β (arXiv 2305.18290,
eq. 3). The estimate is the mean of the log-ratio over answers that π_θ gave, one per prompt. It is
unbiased for answers at temperature 1 and top_p 1 only: at another temperature they are not drawn
from π_θ. A divergence is not negative, but its estimate may be, and so may the interval's ends.

A truncated answer counts as it is, by the log-probabilities of its tokens, without an end; then the
divergence is that of answers of at most this length.

The interval is Student's t over prompts. Log-ratios are skewed to the right, so with few prompts
its upper end is somewhat low.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class AnswerLogps(NamedTuple):
    """Log-probabilities of a policy's answer to a prompt under two models, in nats."""

    prompt_id: str
    num_tokens: int
    """Tokens of the answer, including its end if it finished."""
    logp_policy: float
    logp_reference: float


class Divergence(NamedTuple):
    """An estimate of the KL divergence; what too few answers leave unknown is None."""

    kl: float | None
    """Mean, in nats per answer."""
    kl_lower: float | None
    """None with fewer than two answers."""
    kl_upper: float | None
    kl_per_token: float | None
    """Sum of the log-ratios over the sum of the tokens, in nats per token."""


def estimate_divergence(rows: Sequence[AnswerLogps], *, confidence: float) -> Divergence:
    """The divergence from one answer per prompt, with its interval over prompts."""
    if not rows:
        return Divergence(None, None, None, None)
    ratios = np.array([row.logp_policy - row.logp_reference for row in rows])
    num_tokens = sum(row.num_tokens for row in rows)
    kl, per_token = float(ratios.mean()), float(ratios.sum()) / num_tokens if num_tokens else None
    if len(rows) < 2:
        return Divergence(kl, None, None, per_token)
    from scipy.stats import t

    stderr = float(ratios.std(ddof=1)) / math.sqrt(len(rows))
    half = float(t.ppf((1 + confidence) / 2, len(rows) - 1)) * stderr
    return Divergence(kl, kl - half, kl + half, per_token)
