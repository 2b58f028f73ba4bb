"""The rows of a study: paired by prompt, over trainings, with what it cost."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from pvar.study_certificate import Certificate, Pool, table
from pvar.study_config import StudyConfig
from pvar.study_results import FIGURES, TrainingResult, tabulate


def trained(
    *preferences: float, ability: Mapping[str, float] | None = None, **figures: float
) -> TrainingResult:
    by_prompt = {f"p{row}": value for row, value in enumerate(preferences)}
    return TrainingResult(
        {"evaluate": {prompt: value for prompt, value in by_prompt.items() if value == value}},
        ability or {},
        dict.fromkeys(FIGURES) | figures,
    )


STUDY = StudyConfig(seeds=(0, 1))


def test_an_advantage_over_the_control_is_paired_by_prompt() -> None:
    # Prompt 1 is hard for both, prompt 2 is easy for both: the difference is +0.1 on each, and has
    # no spread, though the win rates (0.5 and 0.4) have much.
    rows = tabulate(
        STUDY,
        {
            "random": [trained(0.1, 0.7, num_pairs=10), trained(0.1, 0.7, num_pairs=10)],
            "top": [trained(0.1, 0.8, num_pairs=8), trained(0.3, 0.8, num_pairs=10)],
        },
        {},
    )
    random, top = rows
    assert (random.over_control, random.claim) == (None, None)
    assert random.win_rate.difference == pytest.approx(0.4)
    assert top.win_rate.difference == pytest.approx(0.5)
    assert top.over_control is not None
    assert top.over_control.difference == pytest.approx(0.1)
    # Prompts do not scatter, trainings do: those of top have the means 0.45 and 0.55, of variance
    # 0.005, whose half is V. One degree of freedom is left, where t is tan(0.475 π).
    half = math.tan(0.475 * math.pi) * math.sqrt(0.005 / 2)
    assert top.over_control.ci_lower == pytest.approx(0.1 - half)
    assert top.over_control.ci_upper == pytest.approx(0.1 + half)
    assert top.over_control.over_trainings
    assert top.by_training == pytest.approx((0.45, 0.55))
    assert (top.figures["num_pairs"], top.figures["kl"]) == (9, None)
    assert top.ability_change is None


def test_prompts_without_a_verdict_of_every_training_are_left_out_of_the_difference() -> None:
    rows = tabulate(
        STUDY,
        {
            "random": [trained(0.5, 0.5, math.nan), trained(0.5, 0.5, 0.9)],
            "top": [trained(0.7, 0.6, 0.1), trained(0.7, math.nan, 0.1)],
        },
        {},
    )
    over = rows[1].over_control
    assert over is not None
    assert (over.num_prompts, over.num_wanted) == (1, 3)
    assert over.difference == pytest.approx(0.2)


def test_ability_is_the_change_from_the_starting_policy() -> None:
    start = {"q0": 1.0, "q1": 0.5, "q2": 0.0, "q3": 1.0}
    worse = dict.fromkeys(start, 0.0)
    rows = tabulate(
        STUDY,
        {"random": [trained(0.5, ability=start), trained(0.5, ability=start)],
         "top": [trained(0.5, ability=worse), trained(0.5, ability=start)]},
        {"random": start, "top": start},
    )  # fmt: skip
    changes = [row.ability_change.difference for row in rows if row.ability_change]
    assert changes == pytest.approx([0, -0.625 / 2])


def test_each_arm_is_compared_with_its_own_start() -> None:
    """A sweep over the policy: another start, another ability."""
    weak, strong = {"q0": 0.0, "q1": 0.5}, {"q0": 1.0, "q1": 0.5}
    rows = tabulate(
        STUDY,
        {"random": [trained(0.5, ability=weak)], "top": [trained(0.5, ability=strong)]},
        {"random": weak, "top": strong},
    )
    changes = [row.ability_change.difference for row in rows if row.ability_change]
    assert changes == [0, 0]


def test_differences_are_told_by_source_for_the_held_out_prompts() -> None:
    results = {
        "random": [trained(0.5, 0.5, 0.4, math.nan), trained(0.5, 0.5, 0.4, 0.5)],
        "top": [trained(0.6, 0.8, 0.4, 0.9), trained(0.7, 0.7, 0.4, 0.9)],
    }
    sources = {"p0": "ours", "p1": "ours", "p2": "theirs", "p3": "theirs", "question": "ability"}
    random, top = tabulate(STUDY, results, {}, sources=sources)
    assert random.by_source == {}
    assert list(top.by_source) == ["ours", "theirs"]
    ours, theirs = top.by_source.values()
    assert ours.difference == pytest.approx(0.2)  # the mean of 0.6, 0.7, 0.8, 0.7 is 0.7
    assert (theirs.difference, theirs.num_prompts, theirs.num_wanted) == (0, 1, 2)
    pool = Pool.of(np.array([0.1, 0.2, 0.02]), num_without=1, sources=["ours", "ours", "elsewhere"])
    assert pool.mean_by_source == {"elsewhere": 0.02, "ours": pytest.approx(0.15)}
    rows = {"arena_hard": [], "evaluate": [random, top]}
    page = Certificate("run", STUDY, pool, [], rows, 0.0, {}).to_markdown()
    assert "| source | PVar | prompts | top |" in page
    assert "| ours | 0.150 | 2 of 2 | +20.0% (" in page
    assert "| theirs | – | 1 of 2 | +0.0% (" in page

    renamed = {prompt: f"{source} |\n one" for prompt, source in sources.items()}
    rows = {"evaluate": tabulate(STUDY, results, {}, sources=renamed), "arena_hard": []}
    page = Certificate("run", STUDY, pool, [], rows, 0.0, {}).to_markdown()
    assert "| ours \\| one | – | 2 of 2 | +20.0% (" in page  # a row of the table, whatever its name

    (_, alone) = tabulate(STUDY, results, {}, sources=dict.fromkeys(sources, "ours"))
    assert alone.by_source == {}
    assert "By source" not in Certificate("r", STUDY, pool, [alone], {}, 0.0, {}).to_markdown()


def test_an_arm_without_results_has_no_row_and_one_without_its_control_no_claim() -> None:
    rows = tabulate(STUDY, {"top": [trained(0.5, 0.6)]}, {})
    assert [(row.cell, row.num_trainings, row.num_planned, row.claim) for row in rows] == [
        ("top", 1, 2, None)
    ]


def test_the_certificate_names_everything_and_is_valid_json() -> None:
    results = {
        "random": [trained(0.5, 0.4), trained(0.5, 0.6)],
        "top": [trained(0.9, 0.9, kl=3.0), trained(0.9, 0.8, kl=5.0)],
    }
    study = STUDY.model_copy(update={"plan": "docs/studies/plan.md at 12ab"})
    certificate = Certificate(
        run="compare-1",
        study=study,
        pool=Pool(10, 2, (0.0, 0.01, 0.02, 0.1, 0.2), 0.25),
        rows=tabulate(study, results, {}),
        further={"arena_hard": tabulate(study, results, {})},
        seconds=7200.0,
        failures={"bottom/1": "it broke"},
    )
    page = certificate.to_markdown()
    for part in (
        "**top: not enough trainings, +37.5%", "| top | 2 of 2 |", "| 4.00 |", "plan: docs/studies",
        "10 prompts, PVar 0.000 to 0.200, quartiles 0.010, 0.020, 0.100; 25% below 0.01",
        "By arena_hard, without a verdict:", "bottom/1: it broke", "2.00 hours",
        "responses shared by all trainings",
    ):  # fmt: skip
        assert part in page
    tree = certificate.to_json()
    assert tree["verdicts"] == {"top": "not enough trainings"}
    arms = tree["arms"]
    assert isinstance(arms, list)
    assert len(arms) == 2
    assert tree["failures"] == {"bottom/1": "it broke"}


def test_a_study_that_is_not_over_says_so_and_one_without_results_has_a_page() -> None:
    def page(*tops: TrainingResult) -> str:
        results = {"random": [trained(0.5), trained(0.5)], "top": tops} if tops else {}
        rows = tabulate(STUDY, results, {})
        return Certificate("run", STUDY, None, rows, {}, 0.0, {}).to_markdown()

    assert "**Interim**: 1 trainings of the plan" in page(trained(0.9))
    assert "Interim" not in page(trained(0.9), trained(0.8))
    nothing = page()
    assert "**Interim**: 4 trainings" in nothing
    assert "No training has a result." in nothing


def test_a_table_of_single_trainings_says_that_their_spread_is_unknown() -> None:
    rows = tabulate(STUDY, {"random": [trained(0.5, 0.4)], "top": [trained(0.9, 0.9)]}, {})
    assert "over prompts only: the spread of trainings is not known" in table(rows)
