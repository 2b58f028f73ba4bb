"""The reward model's gate: figures by hand, what each check refuses, and why in words."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.gate import GateDecision
from pvar.reward_config import ClassifierReward, VaderReward
from pvar.reward_gate import (
    NO_EARLIER_LABELS,
    LabelMargin,
    RewardFigures,
    decide_on_reward_model,
    measure_margins_of_labels,
    refusal_reasons,
)
from pvar.reward_training import (
    RewardGateConfig,
    RewardTrainingConfig,
    is_held_out_label,
    refuse_unfit_reward_training,
)
from pvar.runtime_config import RuntimeConfig

GATE = RewardGateConfig()


def labels(*rows: tuple[float | None, float | None], is_earlier: bool = False) -> list[LabelMargin]:
    return [
        LabelMargin(f"p{number}", "file", is_earlier, ours, theirs)
        for number, (ours, theirs) in enumerate(rows)
    ]


def measured(rows: list[LabelMargin], reward_scale: float = 1.0) -> RewardFigures:
    return measure_margins_of_labels(rows, reward_scale=reward_scale, confidence=0.95, seed=0)


def decided(figures: RewardFigures, gate: RewardGateConfig = GATE) -> GateDecision:
    return decide_on_reward_model(figures, gate, confidence=0.95)


def failed(rows: list[LabelMargin]) -> list[str]:
    decision = decided(measured(rows))
    assert decision.passed == all(check.passed for check in decision.checks)
    return [check.name for check in decision.checks if not check.passed]


def graded(num_right: int, num_wrong: int, theirs: float | None = None) -> list[LabelMargin]:
    """New labels with margins of ±2; `theirs` is the other model's margin, or the same."""
    margins = [2.0] * num_right + [-2.0] * num_wrong
    return labels(*((each, each if theirs is None else theirs) for each in margins))


def test_figures_are_those_derived_by_hand() -> None:
    """Margins ln 3, −ln 3, 0 and missing: p = ¾, ¼, ½.

    Accuracy (1 + 0 + ½)/3; Brier ((¼)² + (¾)² + (½)²)/3 = 14/48; certainty (¾ + ¾ + ½)/3 = ⅔, so
    ⅙ more than accuracy. The other model agrees with all but the first: (0 + 1 + 1)/3.
    """
    figures = measured(labels((math.log(3), -1.0), (-math.log(3), 1.0), (0.0, 1.0), (None, 1.0)))
    assert (figures.num_new, figures.num_earlier, figures.coverage) == (4, 0, 0.75)
    assert figures.accuracy == pytest.approx(0.5)
    assert figures.brier == pytest.approx(14 / 48)
    assert figures.overconfidence == pytest.approx(1 / 6)
    assert figures.on_new.num_labels == 3
    assert figures.on_new.opponent_accuracy == pytest.approx(2 / 3)
    assert figures.on_new.change == pytest.approx(-1 / 6)
    assert figures.on_earlier is None


def test_the_reward_scale_divides_margins() -> None:
    """At τ = 2 a margin of 2 ln 3 is p = ¾: 1 − p squared is 1/16."""
    assert measured(labels((2 * math.log(3), 0.0)), 2.0).brier == pytest.approx(1 / 16)


def test_a_good_model_passes_and_says_what_was_not_compared() -> None:
    # 80 of 100 right with p = σ(2) = 0.88: lower end near 0.8 − 1.96·0.04, Brier
    # 0.8·0.119² + 0.2·0.881² = 0.167.
    figures = measured(graded(80, 20))
    decision = decided(figures)
    assert decision.passed
    assert decision.note == NO_EARLIER_LABELS
    assert figures.accuracy_lower == pytest.approx(0.72, abs=0.02)
    assert figures.brier == pytest.approx(0.167, abs=0.001)


def test_few_labels_do_not_pass_whatever_they_show() -> None:
    # All of 5 right: the lower end is 0.025^(1/5) = 0.478.
    figures = measured(graded(5, 0))
    assert figures.accuracy_lower == pytest.approx(0.025 ** (1 / 5))
    assert "accuracy_lower" in failed(graded(5, 0))


def test_without_any_label_nothing_passes() -> None:
    assert failed([]) == ["coverage", "accuracy_lower", "brier_upper", "accuracy_change_lower"]


def test_a_batch_of_which_two_fifths_are_flipped_is_refused_however_many_labels_it_has() -> None:
    # A model that is right about every true label agrees with 60 %: at the bound, not above it.
    rows = graded(600, 400)
    assert "accuracy_lower" in failed(rows)
    assert "accuracy_lower" not in failed(graded(700, 300))
    (reason,) = [
        text
        for text in refusal_reasons(measured(rows), decided(measured(rows)))
        if text.startswith("accuracy on")
    ]
    assert "1000 new held-out labels is 0.600" in reason
    assert "is not above 0.6: labels may be wrong, or too few" in reason


def test_a_model_that_is_too_certain_is_refused_though_it_ranks_well() -> None:
    # 72 % right, with p near 0 or 1: the Brier score is the share of errors, 0.28.
    certain = labels(*[(30.0, 30.0)] * 288, *[(-30.0, -30.0)] * 112)
    modest = labels(*[(1.0, 1.0)] * 288, *[(-1.0, -1.0)] * 112)
    assert failed(certain) == ["brier_upper"]
    assert failed(modest) == []
    figures = measured(certain)
    (reason,) = refusal_reasons(figures, decided(figures))
    assert "certainty exceeds accuracy by 0.280" in reason


def test_a_loss_on_earlier_labels_is_refused() -> None:
    """What it learns from new labels may not cost what it knew."""
    new = graded(90, 10)
    kept = labels(*[(2.0, 2.0)] * 90, *[(-2.0, -2.0)] * 10, is_earlier=True)
    lost = labels(*[(2.0, 2.0)] * 60, *[(-2.0, 2.0)] * 30, *[(-2.0, -2.0)] * 10, is_earlier=True)
    assert failed([*new, *kept]) == []
    assert failed([*new, *lost]) == ["earlier_accuracy_change_lower"]
    figures = measured([*new, *lost])
    (reason,) = refusal_reasons(figures, decided(figures))
    assert reason.startswith("accuracy on 100 earlier labels changes by -0.300")
    assert reason.endswith("does not rule out a loss of more than 0.1")


@pytest.mark.parametrize(("num_earlier", "is_compared"), [(1, False), (35, False), (36, True)])
def test_a_few_earlier_labels_do_not_refuse_every_later_batch(
    num_earlier: int, is_compared: bool
) -> None:
    """Models that agree on all of n labels rule out a loss of 1 − 0.025^(1/n): 0.0975 for 36."""
    earlier = labels(*[(2.0, 2.0)] * num_earlier, is_earlier=True)
    decision = decided(measured([*graded(1600, 400), *earlier]))
    assert decision.passed
    names = [check.name for check in decision.checks]
    assert ("earlier_accuracy_change_lower" in names) == is_compared
    assert decision.note.startswith("" if is_compared else f"{num_earlier} earlier labels are too")
    assert bool(decision.note) != is_compared


def test_without_any_loss_allowed_earlier_labels_are_always_compared() -> None:
    rows = [*graded(90, 10, theirs=-2.0), *labels(*[(2.0, 2.0)] * 10, is_earlier=True)]
    decision = decided(measured(rows), RewardGateConfig(max_accuracy_loss=0))
    assert [check.name for check in decision.checks if not check.passed] == [
        "earlier_accuracy_change_lower"
    ]
    assert decision.note == ""


def test_a_model_that_is_worse_than_the_champion_on_new_labels_is_refused() -> None:
    assert failed(graded(85, 15, theirs=2.0)) == ["accuracy_change_lower"]


def test_missing_rewards_do_not_make_a_model_better() -> None:
    # It has no reward for what it would get wrong.
    silent = labels(*[(2.0, 2.0)] * 90, *[(None, 2.0)] * 10)
    assert failed(silent) == ["coverage"]


def test_a_rewardless_opponent_shows_nothing_about_a_loss() -> None:
    unknown = labels(*[(2.0, None)] * 100)
    assert failed(unknown) == ["accuracy_change_lower"]


MARGINS = st.lists(st.floats(-50, 50, allow_nan=False), min_size=1, max_size=30)


@given(MARGINS)
def test_turned_labels_give_the_other_accuracy(margins: list[float]) -> None:
    there = measured(labels(*((each, 1.0) for each in margins)))
    back = measured(labels(*((-each, 1.0) for each in margins)))
    assert there.accuracy + back.accuracy == pytest.approx(1)
    assert 0 <= there.brier_lower <= there.brier + 1e-9
    assert there.brier <= there.brier_upper + 1e-9 <= 1 + 2e-9
    # Of p and 1 − p one is wrong: (1 − p)² + p² lies between ½ and 1.
    assert 0.5 - 1e-9 <= there.brier + back.brier <= 1 + 1e-9


def test_held_out_labels_are_a_share_of_the_prompts_and_stay_held_out() -> None:
    ids = [f"prompt {number}" for number in range(4000)]
    fifth = {each for each in ids if is_held_out_label(each, 0.2)}
    half = {each for each in ids if is_held_out_label(each, 0.5)}
    # A share of 4000 draws at 0.2 has a standard error of 0.0063.
    assert len(fifth) / len(ids) == pytest.approx(0.2, abs=0.025)
    assert fifth < half


def test_a_champion_that_nothing_trains_is_refused() -> None:
    champion = (VaderReward(), ClassifierReward(name="learned", model="champion"))
    with pytest.raises(ValueError, match=r"reward model learned is champion.*is null; set"):
        refuse_unfit_reward_training(None, champion, RuntimeConfig())
    refuse_unfit_reward_training(RewardTrainingConfig(model="org/r"), champion, RuntimeConfig())
    with pytest.raises(ValueError, match=r"reward_training\.model is champion"):
        refuse_unfit_reward_training(
            RewardTrainingConfig(model="champion"), champion, RuntimeConfig()
        )


def test_steps_that_processes_cannot_share_are_refused() -> None:
    training = RewardTrainingConfig.model_validate({"model": "o/r", "train": {"pairs_per_step": 3}})
    with pytest.raises(ValueError, match=r"pairs_per_step \(3\) is not a multiple"):
        refuse_unfit_reward_training(training, (), RuntimeConfig(pairs_per_device=2))


def test_intervals_are_those_of_the_seed() -> None:
    rng = np.random.default_rng(0)
    rows = labels(*((float(each), 0.5) for each in rng.normal(1, 1, 40)))
    assert measured(rows) == measured(rows)
