"""Figures of a study: what each shows, and that one without data is left out."""

import re

import numpy as np

from infra.studies import load_study, study_names
from pvar.study_config import StudyConfig, cells
from pvar.study_margins import ArmMargins, MarginCurve
from pvar.study_results import FIGURES, TrainingResult, tabulate
from tasks.report.study_figures import TrainingPoint, study_figures


def trained(value: float) -> TrainingResult:
    return TrainingResult({"evaluate": {"a": value, "b": value}}, {}, dict.fromkeys(FIGURES))


ROWS = tabulate(
    StudyConfig(seeds=(0, 1)),
    {"random": [trained(0.5), trained(0.6)], "top": [trained(0.7), trained(0.9)]},
    {},
)


def test_every_arm_is_in_every_figure() -> None:
    points = [TrainingPoint("random", 1.0, 0.5, -0.1), TrainingPoint("top", 2.0, 0.8, -0.2)]
    margins = {"random": [np.array([0.0, 1.0])], "top": [np.array([0.0, 2.0, 3.0])]}
    figures = study_figures(ROWS, points, margins)
    assert set(figures) == {"differences", "frontier", "margins"}
    for name in ("frontier", "margins"):
        texts = re.findall(r">([^<>]+)</text>", figures[name])
        assert {"random", "top"} <= set(texts)
    assert "change of ability, %" in figures["frontier"]
    assert ">top</text>" in figures["differences"]
    assert ">random</text>" not in figures["differences"]  # the control is not compared with itself


def test_held_out_margins_are_shown_by_arm_and_by_pvar() -> None:
    curve = MarginCurve(3, (0.0, 1.0), (0.0, 0.5), (0.0, 2.0))
    random = ArmMargins("random", 2, (0, 14), 0, {"all": curve, "low": curve, "high": curve})
    top = ArmMargins("top", 2, (0, 14), 3, {"all": curve})  # no prompt has a PVar
    figures = study_figures(ROWS, [], {}, [random, top])
    assert set(figures) == {"differences", "held_out_margins", "held_out_margins_by_pvar"}
    texts = re.findall(r">([^<>]+)</text>", figures["held_out_margins"])
    assert {"random", "top"} <= set(texts)
    texts = re.findall(r">([^<>]+)</text>", figures["held_out_margins_by_pvar"])
    assert {"random", "low PVar", "high PVar"} <= set(texts)
    assert not {"top", "middle PVar"} & set(texts)


def test_each_arm_of_every_study_that_ships_has_a_colour_of_its_own() -> None:
    studies = [load_study(name) for name in study_names()]
    largest = max(studies, key=lambda study: len(cells(study)))
    rows = tabulate(largest, {cell.name: [trained(0.5)] for cell in cells(largest)}, {})
    margins = {row.cell: [np.array([0.0, 1.0])] for row in rows}
    drawn = study_figures(rows, [], margins)["margins"]
    lines = re.findall(r"fill: none; stroke: (#\w{6}); stroke-width: 1.5", drawn)
    assert len(set(lines)) == len(rows) == 8


def test_the_same_data_gives_the_same_bytes() -> None:
    points = [TrainingPoint("top", 2.0, 0.8, None)]
    assert study_figures(ROWS, points, {}) == study_figures(ROWS, points, {})


def test_figures_without_data_are_left_out() -> None:
    assert set(study_figures(ROWS, [], {})) == {"differences"}
    assert study_figures([], [], {}) == {}
