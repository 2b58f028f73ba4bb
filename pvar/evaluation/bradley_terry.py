"""Bradley–Terry strengths with covariates, by maximum likelihood.

    logit P(win) = design · coefficients

A game's outcome is 1, ½ or 0; a tie counts as half a win and half a loss. Source: Bradley and
Terry, Biometrika 39 (1952); with covariates as in LMArena's style control.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ALMOST_UNPENALISED = 1e6


def fit_strengths(design: Floats, values: Floats, weights: Floats, *, c: float) -> Floats:
    """Coefficients that maximise Σ weight · log-likelihood − ½ Σ coefficient² / `c`.

    `design` has the shape (num_games, num_coefficients), `values` and `weights` (num_games,). With
    `c` infinite a penalty of 1e-6 remains: it picks one solution where the strengths have a free
    constant, and keeps a model that wins every game finite.
    """
    from sklearn.linear_model import LogisticRegression

    wins, losses = weights * values, weights * (1 - values)
    model = LogisticRegression(
        C=_ALMOST_UNPENALISED if math.isinf(c) else c,
        fit_intercept=False,
        solver="newton-cholesky",
        tol=1e-8,
        max_iter=1000,
    )
    model.fit(
        np.concatenate([design, design]),
        np.repeat([1, 0], values.size),
        sample_weight=np.concatenate([wins, losses]),
    )
    coefficients: Floats = model.coef_[0]
    return coefficients
