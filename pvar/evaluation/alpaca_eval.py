"""AlpacaEval 2's win rates from a judge's preferences, before any control for length.

A preference p in [1, 2] compares the baseline's answer (1) with the model's (2); 0 is an older
spelling of the draw 1.5, and a missing one (NaN) is not judged. With y = p − 1 over n judged rows:

    win rate          100 · mean(y)                  standard error  100 · std(y, ddof 1) / √n
    discrete win rate 100 · (wins + draws / 2) / n   win: y > ½, draw: y = ½

Source: tatsu-lab/alpaca_eval 0.6.6, metrics/helpers.py (describe_head2head) and main.py.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pvar.errors import InputError

_OLD_DRAW = 0.0
_DRAW = 1.5


class AlpacaEvalWinRate(NamedTuple):
    """The leaderboard's numbers for one model; rates in percent, NaN with too few rows."""

    win_rate: float
    standard_error: float
    discrete_win_rate: float
    num_judged: int
    num_wins: int
    num_losses: int
    num_draws: int


def model_preferences(preferences: ArrayLike) -> NDArray[np.float64]:
    """Preferences on AlpacaEval's scale as probabilities in [0, 1] that the model is better.

    Shape (n,), NaN stays NaN. Raises InputError for a value that is neither 0 nor in [1, 2].
    """
    values = np.asarray(preferences, dtype=np.float64)
    values = np.where(values == _OLD_DRAW, _DRAW, values)
    wrong = ~np.isnan(values) & ~((values >= 1) & (values <= 2))
    if wrong.any():
        raise InputError(
            f"{int(wrong.sum())} of {values.size} preferences are not on AlpacaEval's scale (1 is "
            f"the baseline, 2 the model, 0 or 1.5 a draw); the first is {values[wrong][0]}"
        )
    return values - 1


def alpaca_eval_win_rate(preferences: ArrayLike) -> AlpacaEvalWinRate:
    """Win rates of one model from its preferences on AlpacaEval's scale, shape (n,)."""
    wins = model_preferences(preferences)
    wins = wins[~np.isnan(wins)]
    n = wins.size
    num_wins, num_losses = int((wins > 0.5).sum()), int((wins < 0.5).sum())
    num_draws = n - num_wins - num_losses
    return AlpacaEvalWinRate(
        win_rate=100 * float(wins.mean()) if n else math.nan,
        standard_error=100 * float(wins.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan,
        discrete_win_rate=100 * (num_wins + num_draws / 2) / n if n else math.nan,
        num_judged=n,
        num_wins=num_wins,
        num_losses=num_losses,
        num_draws=num_draws,
    )
