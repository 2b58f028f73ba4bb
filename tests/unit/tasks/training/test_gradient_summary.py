"""The summary of measured gradients, from made-up ones."""

import math
from pathlib import Path
from typing import Any

import pytest

from tasks.training.gradient_summary import draw_gradients, summarise_gradients
from tasks.training.prompt_gradients import PromptGradient


def gradient(number: int, **changes: Any) -> PromptGradient:
    pvar = 0.01 * (number + 1)
    values: dict[str, Any] = {
        "prompt_id": str(number), "rewards": (0.0, 1.0), "log_ratios": (0.0, 0.0), "pvar": pvar,
        "policy_pvar": 0.0, "label_gap": pvar, "soft_norm": 0.1, "difference_norm": 5.0,
        "num_pairs": 1, "margin": 0.0, "trained_norm": 2.0,
    }  # fmt: skip
    return PromptGradient(**values | changes)


def test_correlations_are_those_of_ranks() -> None:
    # PVar has ranks 1 2 3 4; soft 1 2 4 3: ρ = 1 − 6 · 2/(4 · 15) = 0.8; trained 4 3 2 1: −1.
    soft, trained = (0.01, 0.02, 0.9, 0.03), (4.0, 3.0, 2.0, 0.5)
    own = (0.02, 0.01, 0.03, 0.04)  # ranks 2 1 3 4: ρ = 0.8; |differences| 0.01 0.01 0 0
    rows = [
        gradient(n, soft_norm=soft[n], trained_norm=trained[n], policy_pvar=own[n])
        for n in range(4)
    ]
    found = summarise_gradients(rows)
    assert found.soft.rho == pytest.approx(0.8)
    assert found.trained.rho == pytest.approx(-1)
    assert found.policy_pvar.rho == pytest.approx(0.8)
    assert found.drift == pytest.approx(0.005)
    assert found.num_within_bound == 3  # 0.9 > √0.03 · 5
    assert found.num_trained_beyond_bound == 3  # bounds 0.5, 0.71, 0.87, 1
    # soft_norm / bound: 0.02, 0.028, 1.04, 0.03
    assert found.tightness[0] == pytest.approx(0.02)
    assert found.tightness[1] == pytest.approx((0.02 / (0.02**0.5 * 5) + 0.03) / 2)
    assert found.tightness[2] == pytest.approx(0.9 / (0.03**0.5 * 5))


def test_prompts_without_a_pair_are_missing_and_not_zero() -> None:
    rows = [gradient(n, soft_norm=0.01 * n, trained_norm=1.0 + n) for n in range(4)]
    rows.append(gradient(4, num_pairs=0, margin=None, trained_norm=None))
    found = summarise_gradients(rows)
    assert found.num_prompts == 5
    assert found.num_trained == 4
    assert found.trained.rho == pytest.approx(1)  # 0 if the last, of highest PVar, were 0


def test_the_starting_policy_has_no_drift_and_correlates_with_nothing() -> None:
    found = summarise_gradients([gradient(n) for n in range(4)])
    assert math.isnan(found.policy_pvar.rho)
    assert found.drift is None  # not the mean PVar


@pytest.mark.parametrize("trained_norm", [2.0, None])
def test_the_figure_is_drawn_with_and_without_pairs(
    tmp_path: Path, trained_norm: float | None
) -> None:
    draw_gradients(
        [gradient(n, trained_norm=trained_norm) for n in range(4)], tmp_path / "figure.svg"
    )
    assert "<svg" in (tmp_path / "figure.svg").read_text()
