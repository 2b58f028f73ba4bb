"""Bradley–Terry fits against their closed forms."""

import math

import numpy as np
import pytest

from pvar.evaluation.bradley_terry import fit_strengths

TWO_PLAYERS = np.array([[1.0, -1.0]])


def test_two_players_strengths_differ_by_the_log_odds() -> None:
    # Three wins, one loss and two ties: 4 of 6, so log 2; the constant is free and centred.
    values, weights = np.array([1.0, 0.0, 0.5]), np.array([3.0, 1.0, 2.0])

    fitted = fit_strengths(np.repeat(TWO_PLAYERS, 3, axis=0), values, weights, c=math.inf)

    assert fitted == pytest.approx([math.log(2) / 2, -math.log(2) / 2], abs=1e-5)


def test_the_penalty_is_half_the_sum_of_squares_over_c() -> None:
    # First-order condition for the strength s against −s, ten wins: 10 · (1 − σ(2s)) = s / c.
    strength = fit_strengths(TWO_PLAYERS, np.ones(1), np.full(1, 10.0), c=2.0)[0]

    assert 10 * (1 - 1 / (1 + math.exp(-2 * strength))) == pytest.approx(strength / 2, abs=1e-6)


def test_a_covariate_that_explains_the_wins_takes_the_credit() -> None:
    # Wins go with the feature only: 3 of 4 where it is 1, 1 of 4 where it is −1.
    design = np.array([[1.0, -1.0, 1.0], [1.0, -1.0, -1.0]])
    values, weights = np.array([0.75, 0.25]), np.array([400.0, 400.0])

    fitted = fit_strengths(design, values, weights, c=math.inf)

    assert fitted == pytest.approx([0, 0, math.log(3)], abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_player_who_always_wins_or_loses_stays_finite(value: float) -> None:
    fitted = fit_strengths(TWO_PLAYERS, np.full(1, value), np.full(1, 50.0), c=math.inf)

    assert np.isfinite(fitted).all()
    assert abs(1 / (1 + math.exp(fitted[1] - fitted[0])) - value) < 1e-4
