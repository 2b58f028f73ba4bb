"""Implicit rewards of a policy: r = β · (log π_θ(y|x) − log π_ref(y|x)).

DPO trains a policy that is its own reward model (arXiv 2305.18290, eq. 5, up to a term of the
prompt alone, which no difference within a prompt sees). PVar under these rewards is the implicit
PVar: `preference_variance(implicit_rewards(policy_logps, reference_logps, beta=beta))`, scale 1.
"""

import math

import numpy as np
import numpy.typing as npt

from pvar.errors import ConfigError, InputError
from pvar.pairwise import Floats

MAX_LOGP = 1e-3
"""Tolerance for log-probabilities above 0, which come from rounding in a log-softmax."""


def implicit_rewards(
    policy_logps: npt.ArrayLike, reference_logps: npt.ArrayLike, *, beta: float
) -> Floats:
    """Implicit rewards from the log-probabilities of whole responses, in nats.

    Both arrays have the same shape, for PVar (num_prompts, num_responses); NaN is missing. Returns
    that shape, NaN where either is not finite; float32 from float32, otherwise float64. Raises
    InputError for different shapes or log-probabilities above 0, ConfigError unless β > 0.
    """
    if not (math.isfinite(beta) and beta > 0):
        raise ConfigError(f"beta is {beta}; expected the positive β of the DPO loss")
    policy, reference = np.asarray(policy_logps), np.asarray(reference_logps)
    if policy.shape != reference.shape:
        raise InputError(
            f"policy logps have shape {policy.shape} and reference logps {reference.shape}; give "
            "both for the same responses"
        )
    for name, logps in (("policy", policy), ("reference", reference)):
        if (logps > MAX_LOGP).any():
            raise InputError(
                f"the largest of the {name} logps is {np.nanmax(logps):.4g}; log-probabilities are "
                "at most 0 (were losses passed?)"
            )
    dtype = np.result_type(policy, reference, np.float32)
    present = np.isfinite(policy) & np.isfinite(reference)
    with np.errstate(invalid="ignore"):  # −∞ − (−∞), replaced below
        rewards: Floats = beta * (np.asarray(policy, dtype) - np.asarray(reference, dtype))
    rewards[~present] = np.nan
    return rewards
