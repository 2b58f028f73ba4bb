"""The paper's theorem at the start of training: PVar bounds the gradient of a prompt.

While the policy equals its reference, the DPO gradient of a pair whose label has probability
p = σ((r_i − r_j)/τ) is, in expectation, −β (p − ½) g with g = ∇log π(y_i|x) − ∇log π(y_j|x). Over
the ordered pairs of a prompt's responses, by the Cauchy–Schwarz inequality,

    ‖E[β (p − ½) g]‖ ≤ √E[(p − ½)²] · β √E‖g‖² = √PVar · β √E‖g‖²

(arXiv 2510.13022, section 3, has a constant and a power of PVar over all of training; this is the
first step, where nothing is hidden). With G_i = ∇log π(y_i|x) both sides need each G_i once:

    E[(p − ½) g] = Σ_i c_i G_i,   c_i = 2/(n(n−1)) Σ_{j≠i} (p_ij − ½)
    E‖g‖² = 2 (n Σ_i ‖G_i‖² − ‖Σ_i G_i‖²) / (n(n−1))
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pvar.errors import InputError

Floats = npt.NDArray[np.float64]


def pair_weights(rewards: npt.ArrayLike, *, scale: float = 1.0) -> Floats:
    """The weights c of the responses' gradients in the expected gradient, (n,); their sum is 0.

    rewards: (n,) finite, n ≥ 2, else InputError; scale: τ, in rewards.
    """
    values = np.asarray(rewards, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(
            f"rewards have shape {values.shape}; expected one axis of two or more finite rewards"
        )
    num = len(values)
    # σ(Δ) − ½ = tanh(Δ/2)/2, which is 0 for a response and itself
    centred = np.tanh((values[:, None] - values) / (2 * scale)) / 2
    weights: Floats = 2 * centred.sum(axis=1) / (num * (num - 1))
    return weights


def mean_squared_difference(squared_norms: npt.ArrayLike, squared_norm_of_sum: Any) -> float:
    """E‖G_i − G_j‖² over ordered pairs i ≠ j, from ‖G_i‖² of shape (n,) and ‖Σ_i G_i‖²."""
    norms = np.asarray(squared_norms, np.float64)
    num = len(norms)
    # Rounding may take the difference of nearly equal numbers below 0.
    mean = 2 * (num * float(norms.sum()) - float(squared_norm_of_sum)) / (num * (num - 1))
    return max(0.0, mean)
