"""Signal and noise of the mean gradient of a group of prompts.

For the gradients v_1 … v_n of n prompts, with mean v̄,

    signal = ‖v̄‖,   noise² = Σ_k ‖v_k − v̄‖² / (n(n − 1)),

so noise² is the unbiased estimate of the expected ‖v̄ − E v‖², the squared standard error of v̄ over
all weights. As E‖v̄‖² = ‖E v‖² + noise², a group without any common direction has a ratio of about
1, not 0. The noise shrinks with √n: compare groups of the same size only.

The prompts' gradients are needed only as sums: Σ_k ‖v_k − v̄‖² = Σ_k ‖v_k‖² − ‖Σ_k v_k‖²/n.
(The abstract of the paper's later version, openreview.net/forum?id=axQgyubT4X, says that PVar
controls a signal-to-noise ratio of the updates. Its definition was not at hand; this is not claimed
to be the same.)
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class SignalToNoise(NamedTuple):
    """Signal and noise of n gradients, both in the unit of a gradient's norm."""

    num_gradients: int
    signal: float
    """NaN without a gradient."""
    noise: float
    """NaN for fewer than two gradients."""

    @property
    def ratio(self) -> float:
        """signal / noise; infinite where all gradients are equal, NaN where either is unknown."""
        if self.noise == 0:
            return float("inf") if self.signal > 0 else float("nan")
        return self.signal / self.noise


def signal_to_noise(squared_norms: npt.ArrayLike, squared_norm_of_sum: float) -> SignalToNoise:
    """Signal and noise from ‖v_k‖² of shape (n,) and ‖Σ_k v_k‖²."""
    norms = np.asarray(squared_norms, np.float64)
    num = len(norms)
    if num == 0:
        return SignalToNoise(0, float("nan"), float("nan"))
    signal = squared_norm_of_sum**0.5 / num
    if num == 1:
        return SignalToNoise(1, signal, float("nan"))
    # Rounding may take the difference of nearly equal numbers below 0.
    deviations = max(0.0, float(norms.sum()) - squared_norm_of_sum / num)
    return SignalToNoise(num, signal, (deviations / (num * (num - 1))) ** 0.5)
