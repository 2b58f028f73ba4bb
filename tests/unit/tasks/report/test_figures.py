import math
import re
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from tasks.engine.tables import TrainStep
from tasks.report.data import Correlation, Counts
from tasks.report.figures import correlation_figure, pvar_figure, training_figures, win_rate_figure
from tasks.report.overview_figure import RatePoint, win_rates_figure

PVAR = np.array([0.005, 0.006, 0.007, 0.012, 0.245, 0.25, np.nan])
SELECTED = np.array([False, False, False, True, True, True, False])
COUNTS = Counts(won=5, tied=2, lost=3)


def step(number: int, loss: float = 0.7, **values: float) -> TrainStep:
    fields = {"margin": 0.0, "accuracy": 0.5, "grad_norm": 1.0, **values}
    return TrainStep(
        step=number,
        epoch=0.0,
        loss=loss,
        chosen_reward=0.1,
        rejected_reward=-0.2,
        learning_rate=1e-4,
        **fields,
    )


def points(svg: str, gid: str) -> list[tuple[float, float]]:
    """Vertices of the path (x to the right, y downwards) of the group with that id."""
    group = next(each for each in ET.fromstring(svg).iter("g") if each.get("id") == gid)
    path = next(each for each in group.iter("path") if "stroke" in each.get("style", "fill"))
    return vertices(path.get("d", ""))


def bar(svg: str, gid: str) -> tuple[float, float, float]:
    """Left end, right end and height of a bar."""
    group = next(each for each in ET.fromstring(svg).iter("g") if each.get("id") == gid)
    corners = vertices(next(group.iter("path")).get("d", ""))
    xs, ys = zip(*corners, strict=True)
    return min(xs), max(xs), max(ys) - min(ys)


def vertices(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)]


def words(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter("text")]


ALL = {
    "win_rate": win_rate_figure(0.6, 0.5, 0.7, COUNTS),
    "pvar": pvar_figure(PVAR, SELECTED, 0.012),
    **training_figures([step(1), step(2)]),
}


def test_a_bar_is_as_high_as_its_bin_has_prompts():
    svg = pvar_figure(PVAR, SELECTED, None)
    # Bins of 0.01: three prompts left out in the first, one selected in the second, two selected
    # in the last, whose right end ¼ belongs to it. The prompt without PVar is nowhere.
    unit = bar(svg, "pvar-selected-1")[2]
    assert unit > 0
    heights = {
        (layer, index): bar(svg, f"pvar-{layer}-{index}")[2] / unit
        for layer in ("selected", "other")
        for index in range(25)
    }
    drawn = {key: round(height, 3) for key, height in heights.items() if height > 0}
    assert drawn == {("other", 0): 3, ("selected", 1): 1, ("selected", 24): 2}


def test_the_cut_is_drawn_where_it_is():
    svg = pvar_figure(PVAR, SELECTED, 0.1)
    # 0.1 is the left edge of bin 10.
    assert points(svg, "pvar-cut")[0][0] == pytest.approx(bar(svg, "pvar-other-10")[0])
    assert "cut 0.1" in words(svg)
    assert "cut 0.000416" in words(pvar_figure(PVAR, SELECTED, 0.0004158))


def test_a_single_run_has_an_axis_of_hours():
    """Matplotlib's own limits around one date are years apart."""
    at = datetime(2026, 11, 27, 10, 31, tzinfo=UTC)
    svg = win_rates_figure([RatePoint(at, 0.5, 0.3, 0.7, passed=False)])
    assert "12:00" in words(svg)
    assert "2028" not in words(svg)


def test_no_cut_draws_no_line():
    svg = pvar_figure(PVAR, SELECTED, None)
    assert "pvar-cut" not in svg
    assert not any(word.startswith("cut") for word in words(svg))


def test_the_interval_lies_where_its_ends_are():
    svg = win_rate_figure(0.6, 0.55, 0.7, COUNTS)
    never, always = bar(svg, "win-rate-share-won")[0], bar(svg, "win-rate-share-lost")[1]
    places = [(x - never) / (always - never) for x, _ in points(svg, "win-rate-interval")]
    assert places == pytest.approx([0.55, 0.7], abs=1e-6)


def test_the_shares_of_won_tied_and_lost_fill_the_bar():
    svg = win_rate_figure(0.6, 0.5, 0.7, COUNTS)
    bars = [bar(svg, f"win-rate-share-{name}") for name in COUNTS._fields]
    widths = np.array([right - left for left, right, _ in bars])
    assert widths / widths.sum() == pytest.approx([0.5, 0.2, 0.3], abs=1e-6)
    assert {"5 won", "2 tied", "3 lost"} <= set(words(svg))


def test_comparisons_of_which_none_was_judged_still_have_a_figure():
    assert "win-rate-estimate" in win_rate_figure(0.5, 0, 1, Counts(0, 0, 0))


def test_a_curve_has_a_point_for_each_step_and_goes_the_right_way():
    losses = [0.7, 0.5, 0.6, 0.2, 0.1]
    figures = training_figures([step(number + 1, loss) for number, loss in enumerate(losses)])
    line = points(figures["loss"], "train-loss-loss")
    assert len(line) == 5
    heights = [-y for _, y in line]
    assert np.argsort(heights).tolist() == np.argsort(losses).tolist()
    # Equal steps: equally far apart.
    assert np.ptp(np.diff([x for x, _ in line])) < 1e-3


def test_a_thousand_steps_are_all_drawn():
    figures = training_figures([step(number, 1 / number) for number in range(1, 1001)])
    assert len(points(figures["loss"], "train-loss-loss")) == 1000


def test_the_margin_comes_with_both_rewards():
    svg = training_figures([step(1), step(2, margin=1.0)])["margin"]
    assert {"margin", "chosen", "rejected"} <= set(words(svg))
    for name in ("margin", "chosen_reward", "rejected_reward"):
        assert len(points(svg, f"train-margin-{name}")) == 2


def test_a_value_that_is_not_a_number_leaves_a_gap():
    steps = [step(number, loss) for number, loss in enumerate([0.7, math.nan, 0.6, math.inf, 0.5])]
    assert len(points(training_figures(steps)["loss"], "train-loss-loss")) == 3


def test_a_quantity_without_values_has_no_figure():
    figures = training_figures([step(1, grad_norm=math.nan), step(2, grad_norm=math.nan)])
    assert set(figures) == {"loss", "margin", "accuracy"}
    assert training_figures([]) == {}


@pytest.mark.parametrize("name", ALL)
def test_colours_are_the_pages_own(name: str):
    colours = re.findall(r"(?:fill|stroke): ([^;\"]+)", ALL[name])
    assert colours
    assert {colour for colour in colours if not colour.startswith("var(--")} == {"none"}
    # matplotlib leaves out the fill of what is black: no text may rely on that.
    texts = list(ET.fromstring(ALL[name]).iter("text"))
    assert texts
    assert all("fill: var(--" in text.get("style", "") for text in texts)


@pytest.mark.parametrize("name", ALL)
def test_a_figure_says_in_words_what_it_shows(name: str):
    root = ET.fromstring(ALL[name])
    assert root.get("role") == "img"
    assert re.search(r"\d", root.get("aria-label", ""))


@pytest.mark.parametrize("name", ALL)
def test_a_figure_refers_to_nothing_but_itself(name: str):
    assert "http" not in ALL[name]
    ids = {each.get("id") for each in ET.fromstring(ALL[name]).iter()}
    targets = re.findall(r'url\(#([^)]+)\)|href="([^"]+)"', ALL[name])
    assert {(url or href).removeprefix("#") for url, href in targets} <= ids


def test_the_same_data_gives_the_same_bytes_whatever_style_the_user_prefers():
    with mpl.rc_context({"font.size": 20, "axes.grid": True, "svg.hashsalt": "other"}):
        assert pvar_figure(PVAR, SELECTED, 0.012) == ALL["pvar"]
        assert training_figures([step(1), step(2)])["loss"] == ALL["loss"]


def test_correlations_are_drawn_for_the_measures_that_vary() -> None:
    drawn = correlation_figure(
        [
            Correlation("reward gap", 0.8, 0.7, 0.9, 0.75, 100),
            Correlation("mean length", -0.2, -0.4, 0.0, -0.1, 100),
            Correlation("constant", None, None, None, None, 100),
        ]
    )
    assert [word for word in ("reward gap", "mean length", "constant") if word in words(drawn)] == [
        "reward gap",
        "mean length",
    ]
    assert correlation_figure([Correlation("constant", None, None, None, None, 9)]) == ""
