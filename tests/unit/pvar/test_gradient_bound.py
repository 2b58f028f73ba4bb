"""The two sums of the theorem, against their definitions over pairs."""

import math

import numpy as np
import pytest

from pvar.errors import InputError
from pvar.gradient_bound import mean_squared_difference, pair_weights
from pvar.variance import preference_variance


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_two_responses_by_hand() -> None:
    # r = (ln 3, 0): p = ¾ for the ordered pair (1, 2) and ¼ for (2, 1), so both have (p − ½) g =
    # ¼ (G1 − G2) and their mean is that: c = (¼, −¼).
    assert pair_weights([math.log(3), 0.0]) == pytest.approx([0.25, -0.25])
    # At twice the scale, σ(ln 3 / 2) = √3/(1 + √3).
    half = math.sqrt(3) / (1 + math.sqrt(3)) - 0.5
    assert pair_weights([math.log(3), 0.0], scale=2.0) == pytest.approx([half, -half])
    # G1 = (3, 4), G2 = (0, 4): ‖G1 − G2‖² = 9 in both orders.
    assert mean_squared_difference([25, 16], 3**2 + 8**2) == pytest.approx(9)


def test_many_responses_by_the_definition_over_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    rewards, gradients = rng.normal(size=6) * 2, rng.normal(size=(6, 11))
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    differences = [gradients[i] - gradients[j] for i, j in pairs]
    centred = [sigmoid(rewards[i] - rewards[j]) - 0.5 for i, j in pairs]
    expected = np.mean([c * g for c, g in zip(centred, differences, strict=True)], axis=0)
    squares = np.mean([g @ g for g in differences])

    assert pair_weights(rewards) @ gradients == pytest.approx(expected)
    total = gradients.sum(axis=0)
    found = mean_squared_difference((gradients**2).sum(axis=1), total @ total)
    assert found == pytest.approx(squares)
    # The theorem itself, with PVar as the project computes it.
    pvar = preference_variance(rewards[None])[0]
    assert np.linalg.norm(expected) <= math.sqrt(pvar * squares)


def test_the_bound_is_reached_where_gradients_go_with_preferences() -> None:
    # Cauchy–Schwarz is an equality where g is proportional to p − ½: with two responses, always.
    rewards, gradients = np.array([1.0, -0.5]), np.array([[1.0, 2.0], [0.0, -1.0]])
    expected = pair_weights(rewards) @ gradients
    total = gradients.sum(axis=0)
    squares = mean_squared_difference((gradients**2).sum(axis=1), total @ total)
    pvar = preference_variance(rewards[None])[0]
    assert np.linalg.norm(expected) == pytest.approx(math.sqrt(pvar * squares))


def test_one_response_has_no_pairs() -> None:
    with pytest.raises(InputError, match="two or more"):
        pair_weights([1.0])
