"""Verdicts: what is claimed, when nothing is, and what would change it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pvar.evaluation.method_verdict import MethodClaim, claim

Floats = NDArray[np.float64]


def arm(mean: float, *, trainings: int = 5, prompts: int = 400, scatter: float = 0.0) -> Floats:
    """Preferences around a mean: noise of each verdict, and of each training."""
    rng = np.random.default_rng([round(1000 * mean), trainings, prompts])
    centre = mean + scatter * rng.normal(size=(trainings, 1))
    return np.clip(centre + 0.05 * rng.normal(size=(trainings, prompts)), 0, 1)


def said(first: Floats, second: Floats, num_claims: int = 1) -> MethodClaim:
    return claim(first, second, num_claims=num_claims, delta=0.02, width=0.02, seed=0)


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(0.60, "helps"), (0.40, "hurts"), (0.501, "no difference above δ")],
)
def test_a_clear_result_has_its_verdict(mean: float, verdict: str) -> None:
    assert said(arm(mean), arm(0.5)).verdict == verdict


def test_trainings_that_scatter_leave_it_open() -> None:
    assert said(arm(0.51, scatter=0.05), arm(0.5, scatter=0.05)).verdict == "not enough trainings"


@pytest.mark.parametrize("few", [1, 2, 4])
def test_below_five_trainings_nothing_is_claimed(few: int) -> None:
    assert said(arm(0.9, trainings=few), arm(0.1)).verdict == "not enough trainings"
    assert said(arm(0.9), arm(0.1, trainings=few)).verdict == "not enough trainings"


def test_several_claims_share_the_error_rate() -> None:
    alone, one_of_four = said(arm(0.6), arm(0.5)), said(arm(0.6), arm(0.5), num_claims=4)
    assert alone.confidence == pytest.approx(0.96)
    assert one_of_four.confidence == pytest.approx(1 - 0.03 / 4)
    assert one_of_four.difference.ci_lower < alone.difference.ci_lower


def test_copies_of_a_training_are_no_further_trainings() -> None:
    """A seed that changes nothing (KTO's order, say) must not make a claim."""
    copies = np.tile(arm(0.6)[:1], (10, 1))
    assert said(copies, arm(0.5)).verdict == "not enough trainings"


def test_the_needed_trainings_give_the_wanted_width() -> None:
    """Trainings that scatter by 3 points: with so many as it says, the interval is as wide."""
    found = said(arm(0.55, scatter=0.03), arm(0.5, scatter=0.03))
    needed = found.trainings_needed
    assert needed is not None
    assert needed > 20
    rng = np.random.default_rng(1)
    assert found.difference.spread is not None
    scatter = np.sqrt(np.array(found.difference.spread.of_trainings))
    arms = [
        np.clip(
            0.5 + s * rng.normal(size=(needed, 1)) + 0.05 * rng.normal(size=(needed, 400)), 0, 1
        )
        for s in scatter
    ]
    again = said(*arms).difference
    assert again.ci_upper - again.ci_lower == pytest.approx(0.02, rel=0.15)
    # More prompts do not help where trainings scatter.
    assert found.prompts_needed is None


def test_prompts_that_scatter_need_more_prompts() -> None:
    """Each prompt's difference is ±0.1, of variance 0.01, and trainings agree: 2 t √(0.01/P) is
    0.02 at about P = (2.05 · 0.1 / 0.01)² = 422."""
    signs = np.tile([0.1, -0.1], 25)
    arms = [np.tile(0.5 + signs / 2, (5, 1)), np.tile(0.5 - signs / 2, (5, 1))]
    found = said(*arms)
    assert found.trainings_needed is None
    assert found.prompts_needed == pytest.approx(430, abs=15)
