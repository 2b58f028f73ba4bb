"""The result of a comparison: shared work, matched controls, paired differences."""

import math

import numpy as np
import pytest

from pvar.config import PipelineConfig
from pvar.method_comparison import ArmResults, CompareConfig, tabulate, variant


def outcome(*preferences: float, num_pairs: int = 10, length: float = 50) -> ArmResults:
    return ArmResults(np.array(preferences)[:, None], num_pairs, length)


def test_an_advantage_over_random_is_paired_by_prompt() -> None:
    # Prompt 1 is hard for both, prompt 2 is easy for both: the difference is +0.1 on each, and has
    # no spread, though the win rates (0.5 and 0.4) have much.
    rows = tabulate(
        {
            "random": [outcome(0.1, 0.7), outcome(0.1, 0.7)],
            "top": [outcome(0.1, 0.8, num_pairs=8), outcome(0.3, 0.8, length=70)],
        },
        confidence=0.95,
        seed=0,
    )
    random, top = rows
    assert random.over_control is None
    assert random.win_rate.win_rate == pytest.approx(0.4)
    assert top.win_rate.win_rate == pytest.approx(0.5)
    assert top.over_control is not None
    assert top.over_control.difference == pytest.approx(0.1)
    # Prompts do not scatter, trainings do: those of top have the means 0.45 and 0.55, of variance
    # 0.005, whose half is V. One degree of freedom is left, where t is tan(0.475 π).
    half = math.tan(0.475 * math.pi) * math.sqrt(0.005 / 2)
    assert top.over_control.ci_lower == pytest.approx(0.1 - half)
    assert top.over_control.ci_upper == pytest.approx(0.1 + half)
    assert top.over_control.over_trainings
    assert top.seed_win_rates == pytest.approx((0.45, 0.55))
    assert (top.num_pairs, top.mean_length_characters) == (9, 60)


def test_one_seed_has_an_interval_over_prompts_only() -> None:
    """Two equal values: 0.55 on the scale of preferences, and other prompts make up at most
    1 − √0.025 of the population."""
    rows = tabulate(
        {"random": [outcome(0.1, 0.7)], "top": [outcome(0.2, 0.8)]}, confidence=0.95, seed=0
    )
    over = rows[1].over_control
    assert over is not None
    assert not over.over_trainings
    share = 1 - math.sqrt(0.025)
    assert over.ci_lower == pytest.approx(2 * (0.55 - share * 0.55) - 1)
    assert over.ci_upper == pytest.approx(2 * (0.55 + share * 0.45) - 1)


def test_variants_differ_in_selection_and_training_order_alone() -> None:
    base = PipelineConfig()
    changed = variant(base, "bottom", 7)
    assert (changed.select.strategy, changed.select.seed, changed.train.seed) == ("bottom", 7, 7)
    assert changed.sample == base.sample
    assert changed.score == base.score
    assert changed.select.budget == base.select.budget
    assert changed.evaluate.opponent == base.policy  # a promotion must not change the measure


@pytest.mark.parametrize(
    ("strategies", "seeds"),
    [(["random"], [0]), (["all"], [0]), (["top", "top"], [0]), (["top"], [1, 1])],
)
def test_what_has_no_matched_control_is_refused(strategies: list[str], seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="give each once"):
        CompareConfig.model_validate({"strategies": strategies, "seeds": seeds})


def test_a_strategy_that_the_configuration_cannot_run_is_refused_before_it_runs() -> None:
    with pytest.raises(
        ValueError, match=r"disagreement, which needs at least 2 .* score\.reward_models has 1"
    ):
        CompareConfig(strategies=("disagreement",))
