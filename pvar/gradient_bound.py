"""The paper's theorem at the start of training: what PVar bounds, and what it does not.

Notation: responses y_i to a prompt with rewards r_i; p_ij = σ((r_i − r_j)/τ) the probability of the
label "y_i is preferred"; h_i = β log(π_θ(y_i|x)/π_ref(y_i|x)) the policy's implicit rewards and
q_ij = σ(h_i − h_j) its own preference; G_i = ∇log π_θ(y_i|x) and g = G_i − G_j. The DPO loss of a
pair with label probability p is −p log σ(h_i − h_j) − (1 − p) log σ(h_j − h_i); its gradient is
−β (p − q) g.

Bounded is the gradient of labels that follow p: soft labels, or drawn ones in expectation over the
draw. Over the ordered pairs i ≠ j of a prompt's responses, by the Cauchy–Schwarz inequality,

    ‖E[β (p − q) g]‖ ≤ √E[(p − q)²] · β √E‖g‖²

While the policy equals its reference, q = ½ and E[(p − q)²] is PVar. At a later model it is the
distance of the policy's preferences from the labels' (`label_gap`), and no variance. (arXiv
2510.13022, section 3, has a constant and a power of PVar over all of training; the above is one
step, where nothing is hidden.)

Not bounded by PVar is the gradient of one drawn label, and that of a pair with a hard label, such
as the best answer against the worst, where p = 1:

    −β σ(−m) (G_w − G_l),   m = h_w − h_l;   at the start −β/2 (G_w − G_l), whatever the PVar

That prompts of high PVar teach more in such a training is an observation, which `pvar gradients`
and `pvar compare` measure.

Both sides of the bound need each G_i once:

    E[(p − q) g] = Σ_i c_i G_i,   c_i = 2/(n(n−1)) Σ_{j≠i} (p_ij − q_ij)
    E‖g‖² = 2 (n Σ_i ‖G_i‖² − ‖Σ_i G_i‖²) / (n(n−1))

Axes: n responses.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from pvar.errors import InputError

Floats = npt.NDArray[np.float64]


def pair_weights(
    rewards: npt.ArrayLike,
    *,
    scale: float = 1.0,
    implicit_rewards: npt.ArrayLike | None = None,
) -> Floats:
    """The weights c of the responses' gradients in the expected gradient, (n,); their sum is 0.

    rewards: (n,) finite, n ≥ 2, else InputError; scale: τ, in rewards; implicit_rewards: h, (n,),
    in nats times β, None for a policy that is its reference.
    """
    differences = _preference_differences(rewards, scale, implicit_rewards)
    num = len(differences)
    weights: Floats = 2 * differences.sum(axis=1) / (num * (num - 1))
    return weights


def label_gap(
    rewards: npt.ArrayLike,
    *,
    scale: float = 1.0,
    implicit_rewards: npt.ArrayLike | None = None,
) -> float:
    """E[(p − q)²] over ordered pairs i ≠ j, 0 to 1; PVar for a policy that is its reference.

    Arguments and errors as in `pair_weights`.
    """
    differences = _preference_differences(rewards, scale, implicit_rewards)
    num = len(differences)
    return float(np.square(differences).sum()) / (num * (num - 1))


def hard_label_weight(margin: float) -> float:
    """σ(−m): the weight of β (G_w − G_l) in the gradient of a pair with a hard label.

    margin: m = h_w − h_l, in nats times β; 0 gives the ½ of a policy that is its reference.
    """
    return float(expit(-margin))


def mean_squared_difference(squared_norms: npt.ArrayLike, squared_norm_of_sum: Any) -> float:
    """E‖G_i − G_j‖² over ordered pairs i ≠ j, from ‖G_i‖² of shape (n,) and ‖Σ_i G_i‖²."""
    norms = np.asarray(squared_norms, np.float64)
    num = len(norms)
    # Rounding may take the difference of nearly equal numbers below 0.
    mean = 2 * (num * float(norms.sum()) - float(squared_norm_of_sum)) / (num * (num - 1))
    return max(0.0, mean)


def _preference_differences(
    rewards: npt.ArrayLike, scale: float, implicit_rewards: npt.ArrayLike | None
) -> Floats:
    """(n, n) p_ij − q_ij; 0 on the diagonal."""
    values = np.asarray(rewards, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(
            f"rewards have shape {values.shape}; expected one axis of two or more finite rewards"
        )
    differences = _centred(values / scale)
    if implicit_rewards is not None:
        own = np.asarray(implicit_rewards, np.float64)
        if own.shape != values.shape or not np.isfinite(own).all():
            raise InputError(
                f"implicit rewards have shape {own.shape} and rewards {values.shape}; give a "
                "finite one for each response"
            )
        differences -= _centred(own)
    return differences


def _centred(rewards: Floats) -> Floats:
    """(n, n) σ(r_i − r_j) − ½ = tanh((r_i − r_j)/2)/2, which is 0 for a response and itself."""
    return np.asarray(np.tanh((rewards[:, None] - rewards) / 2) / 2, np.float64)
