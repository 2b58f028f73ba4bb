"""Adaptive sampling: which prompts get another response, to find the top by PVar early.

Sampling K responses for every prompt spends most of the cost on prompts whose first responses
already show a low PVar. Instead every prompt gets two responses. In each round the prompts with the
highest upper confidence bound of PVar (Lai & Robbins 1985) get one more:

    index = PVar_n + c · √(1/n − 1/K)

after n of at most K responses. The second term is the standard error that PVar_n has as a forecast
of PVar_K, the leading Hoeffding term 2√ζ₁/√n with the correction for drawing from K without
replacement, and with one constant for all prompts: the jackknife's own figure is unknown for n = 2
and too noisy just above (plans that mixed it in found less, tests/benchmarks/README.md).

For 0 ≤ h ≤ ¼, Hoeffding's inequality for U-statistics (1963, section 5) bounds the deviation of
PVar_n by ¼·√(ln(1/δ)/n) for even n; c = 0.2 is that at δ ≈ ½.

Axes: P prompts, K responses at most.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pvar.errors import ConfigError, InputError
from pvar.variance import MAX_PVAR

EXPLORATION = 0.2
"""c above; from 0.15 to 0.25 the recall changes by a few hundredths."""


def choose_prompts(
    pvar: npt.NDArray[np.floating[Any]],
    *,
    num_scored: npt.NDArray[np.integer],
    num_sampled: npt.NDArray[np.integer],
    max_responses: int,
    num_new: int,
) -> npt.NDArray[np.bool_]:
    """Choose the prompts that get one more response in the next round.

    pvar: (P,) PVar by the responses so far, of one reward model or combined over several by any
        rule (all have a kernel 0 ≤ h ≤ ¼); NaN where fewer than two are scored.
    num_scored: (P,) responses that `pvar` was measured on.
    num_sampled: (P,) responses sampled so far, including those without a reward: a prompt whose
        responses cannot be scored gets at most `max_responses` too.
    max_responses: K. num_new: responses to spend in this round.

    Returns (P,) booleans, `num_new` of them True or fewer if fewer prompts are below K. Prompts
    without a PVar come first, ties go to the earlier row (sort the rows by prompt id).
    Raises ConfigError for K < 2 or num_new < 1, InputError for wrong shapes.
    """
    if max_responses < 2 or num_new < 1:
        raise ConfigError(
            f"max_responses is {max_responses} and num_new is {num_new}; expected at least 2 and 1"
        )
    for name, counts in (("num_scored", num_scored), ("num_sampled", num_sampled)):
        if counts.shape != pvar.shape:
            raise InputError(
                f"{name} has shape {counts.shape}, but pvar has {pvar.shape}; give one count per "
                "prompt"
            )
    known = np.clip(num_scored, 1, max_responses)
    index = pvar + EXPLORATION * np.sqrt(1 / known - 1 / max_responses)
    index[np.isnan(pvar)] = 2 * MAX_PVAR
    index[num_sampled >= max_responses] = -np.inf
    chosen = np.zeros(len(pvar), np.bool_)
    chosen[np.argsort(-index, kind="stable")[:num_new]] = True
    return chosen & (num_sampled < max_responses)
