"""The sums of the theorem, against their definitions over pairs, and the weight of a hard label."""

import math

import numpy as np
import pytest

from pvar.errors import InputError
from pvar.gradient_bound import (
    hard_label_weight,
    label_gap,
    mean_squared_difference,
    pair_weights,
)
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


def test_the_gap_is_pvar_where_the_policy_is_its_reference() -> None:
    rewards = np.random.default_rng(2).normal(size=7) * 3
    pvar = preference_variance(rewards[None])[0]
    assert label_gap(rewards) == pytest.approx(pvar)
    assert label_gap(rewards, implicit_rewards=np.zeros(7)) == pytest.approx(pvar)
    assert label_gap(rewards * 2, scale=2.0) == pytest.approx(pvar)


def test_a_policy_that_prefers_as_the_labels_has_no_gradient() -> None:
    rewards = np.array([1.5, -0.5, 0.25])
    assert label_gap(rewards, implicit_rewards=rewards + 4) == pytest.approx(0)
    assert pair_weights(rewards, implicit_rewards=rewards + 4) == pytest.approx([0, 0, 0])


def test_the_bound_holds_at_any_policy_with_the_gap_and_not_with_pvar() -> None:
    # p = ¾ and q = ¼: the gradient's weight is p − q = ½, twice the p − ½ of the start, which is
    # all that PVar = 1/16 allows.
    rewards, own = np.array([math.log(3), 0.0]), np.array([0.0, math.log(3)])
    assert pair_weights(rewards, implicit_rewards=own) == pytest.approx([0.5, -0.5])
    assert label_gap(rewards, implicit_rewards=own) == pytest.approx(1 / 4)
    assert preference_variance(rewards[None])[0] == pytest.approx(1 / 16)

    rng = np.random.default_rng(3)
    for _ in range(50):
        r, h, g = rng.normal(size=5) * 2, rng.normal(size=5) * 2, rng.normal(size=(5, 4))
        expected = pair_weights(r, implicit_rewards=h) @ g
        total = g.sum(axis=0)
        squares = mean_squared_difference((g**2).sum(axis=1), total @ total)
        limit = math.sqrt(label_gap(r, implicit_rewards=h) * squares)
        assert np.linalg.norm(expected) <= limit * (1 + 1e-12)


def test_a_hard_label_weighs_half_at_the_start_and_less_once_it_is_learned() -> None:
    assert hard_label_weight(0.0) == 0.5
    assert hard_label_weight(math.log(3)) == pytest.approx(0.25)
    assert hard_label_weight(-math.log(3)) == pytest.approx(0.75)
    assert hard_label_weight(50.0) == pytest.approx(math.exp(-50), rel=1e-9)  # no cancellation


def test_implicit_rewards_of_other_responses_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2,\) and rewards \(3,\)"):
        label_gap([1.0, 0.0, 2.0], implicit_rewards=[0.0, 1.0])
