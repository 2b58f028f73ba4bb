"""The reward scale τ in p = σ(Δr/τ): fixed, from the spread of the data, or calibrated on labels.

PVar depends on the unit of the rewards: ten times smaller rewards turn it into a small multiple of
the reward variance, twenty times larger ones saturate it at ties of ¼. So τ is chosen, recorded,
and reported with the saturation it leads to.

- Fixed: 1, as in arXiv 2510.13022, for reward models trained with the Bradley–Terry loss: their
  rewards are log-odds already. Nothing to compute.
- From the data (`scale_from_spread`): the pooled standard deviation within prompts, so that
  rewards of any unit lead to the same PVar.
- Calibrated (`calibrate_scale`): the τ under which the reward differences of labelled pairs are
  log-odds, by maximum likelihood of the Bradley–Terry model (1952)
  P(chosen ≻ rejected) = σ((r_chosen − r_rejected)/τ).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.errors import InputError
from pvar.pairwise import as_mask, as_rewards

MAX_REWARD = 1e100
"""Squares of larger rewards, summed over many, are too large for a float."""
MAX_RATIO = 1e30
"""Of the largest difference to the fitted scale."""


class CalibratedScale(NamedTuple):
    """A reward scale fitted on labelled pairs."""

    scale: float
    stderr: float
    """From the observed information, by the delta method."""
    log_likelihood: float
    """Sum over the pairs at the optimum; num_pairs · log ½ is a coin."""
    num_pairs: int
    """Pairs with both rewards."""


def scale_from_spread(rewards: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> float:
    """Pooled standard deviation of the rewards within prompts.

    √(Σ_x Σ_i (r_xi − r̄_x)² / Σ_x (n_x − 1)) over the prompts x with n_x ≥ 2 valid rewards.

    rewards: (num_prompts, num_responses), NaN and infinite entries missing; mask: True to use.
    Raises InputError if no prompt has two rewards, or all rewards within every prompt are equal.
    """
    array = as_rewards(rewards)
    valid = np.isfinite(array)
    allowed = as_mask(mask, array.shape)
    if allowed is not None:
        valid &= allowed
    _refuse_huge(array[valid])
    count = valid.sum(axis=1, keepdims=True)
    present = np.where(valid, array, 0).astype(np.float64)
    mean = present.sum(axis=1, keepdims=True) / np.maximum(count, 1)
    squares = float(np.sum((present - mean) ** 2, where=valid))
    degrees = int(np.maximum(count - 1, 0).sum())
    if degrees == 0:
        raise InputError(
            "no prompt has two rewards, so their spread is unknown; sample more responses"
        )
    if squares == 0:
        raise InputError(
            "all rewards within every prompt are equal, so their spread is 0; give reward_scale as "
            "a number, or use another reward model"
        )
    return float(np.sqrt(squares / degrees))


def calibrate_scale(
    chosen_rewards: npt.ArrayLike, rejected_rewards: npt.ArrayLike
) -> CalibratedScale:
    """Fit τ on labelled pairs by maximum likelihood of the Bradley–Terry model.

    Both arrays: (num_pairs,), same order; a pair with a NaN or infinite reward is left out.
    Raises InputError where the likelihood has no maximum at a positive finite τ: when every pair
    is ordered as labelled (τ → 0) or when the rewards do not agree with the labels on the whole
    (Σ Δ ≤ 0, τ → ∞ or negative).
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    chosen, rejected = (as_rewards(side, ndim=1) for side in (chosen_rewards, rejected_rewards))
    if chosen.shape != rejected.shape:
        raise InputError(
            f"{len(chosen)} chosen rewards but {len(rejected)} rejected rewards; give one of each "
            "per pair"
        )
    both = np.isfinite(chosen) & np.isfinite(rejected)
    _refuse_huge(np.concatenate([chosen[both], rejected[both]]))
    differences = chosen[both].astype(np.float64) - rejected[both]
    _refuse_unidentifiable(differences)

    # In units of the largest difference, with slope a = unit/τ, the log-likelihood Σ log σ(a·d) is
    # concave and its derivative Σ d·σ(−a·d) falls from Σ d/2 > 0 to Σ min(d, 0) < 0.
    unit = float(np.abs(differences).max())
    scaled = differences / unit

    def derivative(slope: float) -> float:
        return float(np.sum(scaled * expit(-slope * scaled)))

    upper = 1.0
    while derivative(upper) > 0:
        upper *= 2
        if upper > MAX_RATIO:
            raise _tiny_scale(len(scaled), unit)
    slope = float(brentq(derivative, 0.0, upper, xtol=1e-14, rtol=1e-13))
    probability = expit(slope * scaled)
    information = float(np.sum(scaled**2 * probability * (1 - probability)))
    if information == 0:
        raise _tiny_scale(len(scaled), unit)
    return CalibratedScale(
        scale=unit / slope,
        stderr=unit / slope**2 / np.sqrt(information).item(),
        log_likelihood=float(-np.logaddexp(0, -slope * scaled).sum()),
        num_pairs=len(scaled),
    )


def _tiny_scale(num_pairs: int, largest: float) -> InputError:
    return InputError(
        f"the fitted scale is next to 0: of {num_pairs} pairs with differences of up to "
        f"{largest:g} those that are ordered wrongly differ by next to nothing; set a fixed scale"
    )


def _refuse_huge(rewards: npt.NDArray[np.floating]) -> None:
    largest = float(np.abs(rewards).max(initial=0))
    if largest > MAX_REWARD:
        raise InputError(
            f"a reward is {largest:g} in size, and the largest that a scale can be fitted on is "
            f"{MAX_REWARD:g}; check the rewards, or set a fixed scale"
        )


def _refuse_unidentifiable(differences: npt.NDArray[np.float64]) -> None:
    num_pairs = len(differences)
    if not differences.any():
        raise InputError(
            f"none of {num_pairs} pairs with both rewards has a difference in reward; add pairs"
        )
    if differences.min() >= 0:
        raise InputError(
            f"all {num_pairs} pairs are ordered as labelled, so the likelihood grows as the scale "
            "goes to 0; add pairs that the reward model orders wrongly, or set a fixed scale"
        )
    if differences.sum() <= 0:
        raise InputError(
            f"over {num_pairs} pairs the chosen rewards are {-differences.mean():.4g} lower than "
            "the rejected ones on average: the reward model contradicts the labels "
            "(are chosen and rejected swapped?)"
        )
