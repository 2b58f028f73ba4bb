"""Figures of the report: inline SVG by matplotlib, in the colours and font of the page.

matplotlib draws with placeholder colours, which are replaced by the page's CSS variables. So the
same figure works in light mode, dark mode and print. Text stays text, which can be selected and is
accessible to screen readers. The same data gives the same bytes: the SVG has no date, a fixed salt
for ids, and fixed font metrics.

Arrays: P prompts, S optimiser steps.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.engine.tables import TrainStep
from tasks.report.data import Correlation, Counts, ExamCurve
from tasks.report.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, LINE, ACCENT, QUIET, WARM = (f"#00000{number}" for number in range(1, 7))
_CSS_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    QUIET: "var(--quiet)",
    WARM: "var(--warm)",
}

NUM_PVAR_BINS = 25
MAX_PVAR = 0.25
"""PVar is at most ¼, because a preference probability differs from its mean by at most ½."""
MAX_MARKED_STEPS = 40
"""Curves with more steps are drawn without a dot per step."""

_POINTS_PER_INCH = 72
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pvar report",
    "path.simplify": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": MUTED,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "lines.linewidth": 1.8,
    "lines.markersize": 3,
}


class Curve(NamedTuple):
    """One quantity over the optimiser steps."""

    name: str
    """Name of the `TrainStep` field, and id of the line in the SVG."""
    values: NDArray[np.float64]
    """(S,). Values that are not finite leave a gap."""
    colour: str
    label: str = ""
    """Text at the end of the line. Empty if the figure has a single line."""


def win_rate_figure(
    win_rate: float, ci_lower: float, ci_upper: float, counts: Counts | None
) -> str:
    """The win rate and its interval on an axis from 0 % to 100 %. Rates are in [0, 1].

    With `counts`, a bar above shows the shares of won, tied and lost comparisons.
    """
    label = f"Win rate {win_rate:.0%}, interval {ci_lower:.0%} to {ci_upper:.0%}; even is 50%."

    def paint(axes: "Axes") -> None:
        axes.set(xlim=(0, 1), ylim=(-0.75, 0.55 if counts is None else 1.95), yticks=[])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "even", "75 %", "100 %"])
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.plot([ci_lower, ci_upper], [0, 0], color=ACCENT, linewidth=3, gid="interval")
        axes.plot([win_rate], [0], "o", color=ACCENT, markersize=9, gid="estimate")
        if counts is not None:
            _paint_counts(axes, counts)

    return draw_figure(paint, "win-rate", label, width=380, height=60 if counts is None else 105)


def _paint_counts(axes: "Axes", counts: Counts) -> None:
    total, left = sum(counts), 0.0
    for name, num_pairs, colour in zip(counts._fields, counts, (ACCENT, QUIET, WARM), strict=True):
        share = num_pairs / total if total else 0.0
        axes.barh(1.2, share, left=left, height=0.5, color=colour, gid=f"share-{name}")
        if share > 0.15:  # a narrower bar has no room for its label; the page's text has the number
            axes.text(left + share / 2, 1.6, f"{num_pairs} {name}", ha="center", color=INK)
        left += share


def pvar_figure(pvar: NDArray[np.float64], selected: NDArray[np.bool_], cut: float | None) -> str:
    """Stacked histogram of the PVar of selected and other prompts, with the cut.

    `pvar` and `selected` have the shape (P,). Prompts without a PVar (NaN) are not drawn.
    """
    known = np.isfinite(pvar)
    edges = np.linspace(0, MAX_PVAR, NUM_PVAR_BINS + 1)
    chosen = np.histogram(pvar[known & selected], edges)[0]
    others = np.histogram(pvar[known & ~selected], edges)[0]
    label = f"Histogram of PVar: {known.sum()} prompts, {chosen.sum()} of them selected" + (
        "." if cut is None else f"; the cut is at {number(cut)}."
    )

    def paint(axes: "Axes") -> None:
        layers = (
            ("selected", ACCENT, chosen, np.zeros_like(chosen)),
            ("other", QUIET, others, chosen),
        )
        for layer, colour, heights, bottom in layers:
            bars = axes.bar(
                edges[:-1], heights, 0.86 * edges[1], bottom, align="edge", color=colour
            )
            for index, bar in enumerate(bars):
                bar.set_gid(f"{layer}-{index}")
        axes.set(xlim=(0, MAX_PVAR), xlabel="PVar of the prompt", ylabel="prompts")
        axes.grid(visible=True, axis="y")
        axes.locator_params(axis="y", integer=True)
        if cut is not None:
            axes.axvline(cut, color=INK, linewidth=1.2, linestyle=(0, (3, 2)), gid="cut")
            _write_cut(axes, cut)

    return draw_figure(paint, "pvar", label, width=380, height=205)


def _write_cut(axes: "Axes", cut: float) -> None:
    side, offset = ("left", 4) if cut < MAX_PVAR / 2 else ("right", -4)
    axes.annotate(
        f"cut {number(cut)}",
        (cut, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(offset, 2),
        textcoords="offset points",
        ha=side,
        color=INK,
    )


def correlation_figure(correlations: Sequence[Correlation]) -> str:
    """Spearman's ρ of PVar with each measure, with its interval. Empty if no ρ is known."""
    known = [each for each in correlations if each.spearman is not None]
    if not known:
        return ""
    label = "Rank correlation of PVar with " + ", ".join(
        f"{each.measure} {each.spearman:.2f}" for each in known
    )

    def paint(axes: "Axes") -> None:
        axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        for row, each in enumerate(reversed(known)):
            if each.ci_lower is not None and each.ci_upper is not None:
                axes.plot(
                    [each.ci_lower, each.ci_upper],
                    [row, row],
                    color=ACCENT,
                    linewidth=2,
                    gid=f"interval-{each.measure}",
                )
            if each.spearman is not None:
                axes.plot([each.spearman], [row], "o", color=ACCENT, gid=f"rho-{each.measure}")
        axes.set_yticks(range(len(known)), [each.measure for each in reversed(known)])
        axes.set(xlim=(-1, 1), ylim=(-0.6, len(known) - 0.4), xlabel="rank correlation with PVar")
        axes.grid(visible=True, axis="x")

    return draw_figure(paint, "correlation", label, width=380, height=60 + 26 * len(known))


def exam_figure(curve: ExamCurve) -> str:
    """Win rates of the versions on one exam, with their intervals; empty if none is known."""
    columns = np.array([point[:4] for point in curve.points], dtype=np.float64)  # None is NaN
    versions, rates, lower, upper = columns[np.isfinite(columns).all(axis=1)].T
    if not versions.size:
        return ""
    label = (
        f"Versions {versions[0]:.0f} to {versions[-1]:.0f} on one exam: win rate {rates[0]:.0%} at "
        f"first, {rates[-1]:.0%} at last."
    )

    def paint(axes: "Axes") -> None:
        axes.vlines(versions, lower, upper, color=QUIET, linewidth=3)
        axes.plot(versions, rates, "o-", color=ACCENT, gid="win-rate")
        axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_xlabel("version")
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "even", "75 %", "100 %"])
        axes.set_ylim(0, 1)
        axes.grid(visible=True, axis="y")
        axes.locator_params(axis="x", integer=True)

    return draw_figure(paint, "exam", label, width=380, height=190)


def training_figures(steps: Sequence[TrainStep]) -> dict[str, str]:
    """SVG by name, of loss, margin, accuracy and gradient norm over the optimiser steps.

    The margin is drawn with its two terms, the implicit rewards of chosen and rejected answers. A
    quantity without a finite value has no figure.
    """
    columns = np.array(steps, dtype=np.float64).reshape(-1, len(TrainStep._fields))

    def curve(name: str, colour: str = ACCENT, label: str = "") -> Curve:
        return Curve(name, columns[:, TrainStep._fields.index(name)], colour, label)

    margin = (
        curve("chosen_reward", MUTED, "chosen"),
        curve("rejected_reward", WARM, "rejected"),
        curve("margin", ACCENT, "margin"),
    )
    figures = {
        "loss": _curve_figure("Loss", columns[:, 0], [curve("loss")]),
        "margin": _curve_figure("Reward margin", columns[:, 0], margin, even=0),
        "accuracy": _curve_figure("Accuracy", columns[:, 0], [curve("accuracy")], even=0.5),
        "grad_norm": _curve_figure("Gradient norm", columns[:, 0], [curve("grad_norm")]),
    }
    return {name: svg for name, svg in figures.items() if svg}


def _curve_figure(
    title: str, steps: NDArray[np.float64], curves: Sequence[Curve], even: float | None = None
) -> str:
    main = curves[-1]
    finite = main.values[np.isfinite(main.values)]
    if not finite.size:
        return ""
    label = f"{title} over {steps.size} steps: {finite[0]:.3g} at first, {finite[-1]:.3g} at last."

    def paint(axes: "Axes") -> None:
        for curve in curves:
            _paint_curve(axes, steps, curve, is_main=curve is main)
        if even is not None:
            axes.axhline(even, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_xlabel("optimiser step")
        axes.grid(visible=True, axis="y")
        axes.locator_params(axis="x", integer=True)

    return draw_figure(paint, f"train-{main.name}", label, width=340, height=190)


def _paint_curve(axes: "Axes", steps: NDArray[np.float64], curve: Curve, *, is_main: bool) -> None:
    values = np.where(np.isfinite(curve.values), curve.values, np.nan)
    axes.plot(
        steps,
        values,
        color=curve.colour,
        marker="o" if steps.size <= MAX_MARKED_STEPS else None,
        linewidth=1.8 if is_main else 1.1,
        gid=curve.name,
    )
    if curve.label and np.isfinite(values[-1]):
        axes.annotate(
            curve.label,
            (steps[-1], values[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=curve.colour,
        )


def draw_figure(
    paint: Callable[["Axes"], None], name: str, label: str, *, width: int, height: int
) -> str:
    """SVG of what `paint` draws on the axes, of width × height points, in the page's style."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):  # "default" ignores the user's matplotlibrc
        size = (width / _POINTS_PER_INCH, height / _POINTS_PER_INCH)
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _for_page(buffer.getvalue(), name, label)


def _for_page(svg: str, name: str, label: str) -> str:
    """Adapt matplotlib's SVG to the page: its colours and font, and unique ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r'(\bid="|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace('xlink:href="#', f'href="#{name}-')
    for placeholder, variable in _CSS_VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    opening = f'<svg {view_box.group()} role="img" aria-label="{label}">'
    return opening + svg[svg.index(">") + 1 :].rstrip()
