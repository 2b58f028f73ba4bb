"""AlpacaEval 2's length-controlled win rate: an estimate of the win rate at equal lengths.

    logit P(model wins) = a · tanh(Δ / std Δ) + b · difficulty + c

Δ is the baseline's length minus the model's, in characters, not centred; std has ddof 1 over this
model's rows; difficulty belongs to the instruction; c is the model's own strength. Two gamed
versions of the baseline (verbose and concise) are fitted along with weight 0.1 a row and without c,
so that a and b are held to what mere length does. The win rate is the mean of σ(c + b · difficulty)
over the model's instructions; its published "standard error" is the spread of those predictions
over instructions, not a sampling error of the fit.

The fit minimises C · Σ weight · cross-entropy(soft label) + |a| + |b| + |c|. C is one of ten
values from 1e-4 to 1e4, chosen by the held-out loss of five folds. Source: Dubois et al., arXiv
2404.04475; tatsu-lab/alpaca_eval 0.6.6, metrics/glm_winrate.py. Three things are different here:

- Difficulty is looked up by the instruction's number and not by the row's position, which is wrong
  for every file that is incomplete or in another order. Complete, ordered files agree.
- An instruction belongs to the fold (number mod 5), so the order of the rows cannot matter.
- The minimum is the exact one. The original's solver stops at 1e-4 and is up to 0.1 points off.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.errors import InputError

_GAMED_WEIGHT = 0.2 / 2  # λ = 0.2, shared by the two gamed baselines
_NUM_FOLDS = 5
_CANDIDATE_C = tuple(float(c) for c in np.logspace(-4, 4, 10))

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Calibration(NamedTuple):
    """The two tables that the fit needs; they belong to the judge gpt-4-1106-preview.

    `difficulties` has the shape (num_instructions,). The gamed arrays have one value per row of
    the gamed baselines: preferences in [0, 1], Δ / std Δ, the instruction's number and difficulty.
    """

    difficulties: Floats
    gamed_preferences: Floats
    gamed_std_delta_lengths: Floats
    gamed_indices: Ints
    gamed_difficulties: Floats

    def difficulties_of(self, indices: Ints) -> Floats:
        """Difficulties of instructions by number. Raises InputError where one is not known."""
        known = (indices >= 0) & (indices < self.difficulties.size)
        known[known] = ~np.isnan(self.difficulties[indices[known]])
        if not known.all():
            raise InputError(
                f"there is no difficulty for {int((~known).sum())} of {indices.size} instructions, "
                f"such as number {int(indices[~known][0])}; the calibration belongs to another "
                "evaluation set, or the baseline file is not in its order and has no column index"
            )
        return self.difficulties[indices]


class Coefficients(NamedTuple):
    """a, b and c of the module's formula."""

    length: float
    difficulty: float
    model: float


class LengthControlledWinRate(NamedTuple):
    """In percent."""

    win_rate: float
    standard_error: float
    """Spread of the predictions over instructions / √n; NaN below two instructions."""


class _Rows(NamedTuple):
    features: Floats  # (num_rows, 3): tanh of the length difference, difficulty, is the model's
    preferences: Floats  # (num_rows,) in [0, 1]
    weights: Floats
    folds: Ints

    def of(self, selected: NDArray[np.bool_]) -> "_Rows":
        return _Rows(
            self.features[selected],
            self.preferences[selected],
            self.weights[selected],
            self.folds[selected],
        )


def fit_length_control(
    preferences: Floats, delta_lengths: Floats, indices: Ints, calibration: Calibration
) -> Coefficients:
    """Fit a, b, c to one model's judged rows, all of shape (num_rows,).

    `preferences` are probabilities in [0, 1] that the model is better, `delta_lengths` the
    baseline's characters minus the model's, `indices` the instructions' numbers in `calibration`.
    """
    rows = _training_rows(preferences, delta_lengths, indices, calibration)
    losses = [_held_out_loss(rows, c) for c in _CANDIDATE_C]
    return Coefficients(*_fit(rows, _CANDIDATE_C[int(np.argmin(losses))]).tolist())


def length_controlled_win_rate(
    coefficients: Coefficients, difficulties: Floats
) -> LengthControlledWinRate:
    """Predict the win rate at equal lengths over instructions of these difficulties, shape (n,)."""
    wins = _sigmoid(coefficients.model + coefficients.difficulty * difficulties)
    n = wins.size
    return LengthControlledWinRate(
        win_rate=100 * float(wins.mean()) if n else math.nan,
        standard_error=100 * float(wins.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan,
    )


def _training_rows(
    preferences: Floats, delta_lengths: Floats, indices: Ints, calibration: Calibration
) -> _Rows:
    order = np.argsort(indices, kind="stable")  # the same sums, to the last bit, in any row order
    own = np.column_stack(
        [
            np.tanh(_over_spread(delta_lengths[order])),
            calibration.difficulties_of(indices[order]),
            np.ones(indices.size),
        ]
    )
    gamed = np.column_stack(
        [
            np.tanh(calibration.gamed_std_delta_lengths),
            calibration.gamed_difficulties,
            np.zeros(calibration.gamed_indices.size),
        ]
    )
    return _Rows(
        features=np.concatenate([gamed, own]),
        preferences=np.concatenate([calibration.gamed_preferences, preferences[order]]),
        weights=np.concatenate([np.full(len(gamed), _GAMED_WEIGHT), np.ones(len(own))]),
        folds=np.concatenate([calibration.gamed_indices, indices[order]]) % _NUM_FOLDS,
    )


def _over_spread(delta_lengths: Floats) -> Floats:
    """Δ / std Δ; zero if all differences are equal."""
    spread = float(delta_lengths.std(ddof=1)) if delta_lengths.size > 1 else 0.0
    return delta_lengths / spread if spread > 0 else np.zeros_like(delta_lengths)


def _held_out_loss(rows: _Rows, c: float) -> float:
    """Mean over the folds of the weighted loss of the rows left out of the fit."""
    losses = []
    for fold in np.unique(rows.folds):
        held_out = rows.folds == fold
        if held_out.all():
            continue
        beta = _fit(rows.of(~held_out), c)
        losses.append(float(np.mean(_weighted_losses(rows.of(held_out), beta))))
    return float(np.mean(losses)) if losses else 0.0


def _fit(rows: _Rows, c: float) -> Floats:
    """Coefficients that minimise C · Σ weighted loss + their absolute values, shape (3,).

    |β| becomes smooth by β = u − v with u, v ≥ 0: at the minimum one of the two is zero.
    """
    from scipy.optimize import minimize

    total = rows.weights.sum()
    penalty = 1 / (c * total)

    def objective(halves: Floats) -> tuple[float, Floats]:
        beta = halves[:3] - halves[3:]
        residuals = rows.weights * (_sigmoid(rows.features @ beta) - rows.preferences)
        gradient = rows.features.T @ residuals / total
        value = _weighted_losses(rows, beta).sum() / total + penalty * halves.sum()
        return float(value), np.concatenate([gradient, -gradient]) + penalty

    fitted = minimize(
        objective,
        np.zeros(6),
        jac=True,
        method="SLSQP",
        bounds=[(0, None)] * 6,
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    if not fitted.success:
        raise InputError(
            f"the length-controlled fit of {rows.weights.size} rows did not converge "
            f"({fitted.message}); look for extreme lengths or difficulties in the files"
        )
    halves: Floats = fitted.x
    return halves[:3] - halves[3:]


def _weighted_losses(rows: _Rows, beta: Floats) -> Floats:
    logits = rows.features @ beta
    losses: Floats = rows.weights * (np.logaddexp(0, logits) - rows.preferences * logits)
    return losses


def _sigmoid(logits: Floats) -> Floats:
    probabilities: Floats = np.exp(-np.logaddexp(0, -logits))
    return probabilities
