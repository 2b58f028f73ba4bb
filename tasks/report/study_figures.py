"""Figures of a study, as SVG files of their own: readable on a white or a dark page."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.study_margins import ALL, GROUPS, ArmMargins, MarginCurve
from pvar.study_results import ArmRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000",
)  # fmt: skip
"""Okabe & Ito's, which people with colour-blindness tell apart. More cells than these share them;
no study that ships has more."""
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "pvar study", "font.family": "DejaVu Sans",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "figure.facecolor": "white",
}  # fmt: skip


class TrainingPoint(NamedTuple):
    """One training in the plane of divergence and result."""

    cell: str
    kl: float
    win_rate: float
    ability_change: float | None


def study_figures(
    rows: Sequence[ArmRow],
    points: Sequence[TrainingPoint],
    margins: Mapping[str, Sequence[NDArray[np.float64]]],
    held_out: Sequence[ArmMargins] = (),
) -> dict[str, str]:
    """SVG by name: `differences`, `frontier`, `margins`, `held_out_margins`,
    `held_out_margins_by_pvar`. A figure without data is left out.

    `margins` has the implicit margin of the training pairs of each step, (num_steps,), of each
    training of each cell; `held_out` those of the held-out pairs.
    """
    colours = {row.cell: _COLOURS[n % len(_COLOURS)] for n, row in enumerate(rows)}
    figures = {}
    if any(row.over_control for row in rows):
        figures["differences"] = _drawn([lambda axes: _paint_differences(axes, rows)], 420, 240)
    if points:
        panels: list[Callable[[Axes], None]] = [
            lambda axes: _paint_points(
                axes, [(p.cell, p.kl, p.win_rate) for p in points], colours, "win rate"
            )
        ]
        known = [(p.cell, p.kl, p.ability_change) for p in points if p.ability_change is not None]
        if known:
            panels.append(lambda axes: _paint_points(axes, known, colours, "change of ability"))
        figures["frontier"] = _drawn(panels, 760, 320)
    if any(margins.values()):
        figures["margins"] = _drawn([lambda axes: _paint_margins(axes, margins, colours)], 520, 320)
    return figures | _held_out_figures(held_out, colours)


def _held_out_figures(held_out: Sequence[ArmMargins], colours: Mapping[str, str]) -> dict[str, str]:
    """All arms in one panel, and one panel per arm with its groups."""
    figures = {}
    if held_out:
        lines = [_Line(row.cell, row.steps, row.curves[ALL], colours[row.cell]) for row in held_out]
        figures["held_out_margins"] = _drawn([lambda axes: _paint_lines(axes, lines)], 520, 320)
    if grouped := [row for row in held_out if len(row.curves) > 1]:
        figures["held_out_margins_by_pvar"] = _drawn(
            [partial(_paint_groups, row=row) for row in grouped], 240 * len(grouped), 280,
            share_y=True,
        )  # fmt: skip
    return figures


class _Line(NamedTuple):
    label: str
    steps: Sequence[float]
    curve: MarginCurve
    colour: str


def _paint_groups(axes: "Axes", row: ArmMargins) -> None:
    lines = [
        _Line(f"{name} PVar", row.steps, row.curves[name], colour)
        for name, colour in zip(GROUPS, _COLOURS, strict=False)
        if name in row.curves
    ]
    _paint_lines(axes, lines)
    axes.set(title=row.cell)


def _paint_lines(axes: "Axes", lines: Sequence[_Line]) -> None:
    """The mean over trainings, and their range."""
    for label, steps, curve, colour in lines:
        axes.plot(steps, curve.mean, "o-", color=colour, markersize=3, label=label)
        axes.fill_between(steps, curve.lowest, curve.highest, color=colour, alpha=0.12)
    axes.set(xlabel="optimiser step", ylabel="margin of held-out pairs")
    axes.legend(frameon=False)


def _paint_differences(axes: "Axes", rows: Sequence[ArmRow]) -> None:
    shown = [(row.cell, row.over_control) for row in rows if row.over_control is not None]
    axes.axvline(0, color="#999999", linewidth=1)
    for height, (_, found) in enumerate(reversed(shown)):
        axes.plot([100 * found.ci_lower, 100 * found.ci_upper], [height, height], color="#0072b2")
        axes.plot([100 * found.difference], [height], "o", color="#0072b2")
    axes.set_yticks(range(len(shown)), [cell for cell, _ in reversed(shown)])
    axes.set(xlabel="win rate minus the control's, points", ylim=(-0.6, len(shown) - 0.4))


def _paint_points(
    axes: "Axes",
    points: Sequence[tuple[str, float, float]],
    colours: Mapping[str, str],
    quantity: str,
) -> None:
    """One dot per training, and a cross at each cell's mean."""
    for cell, colour in colours.items():
        own = np.array([point[1:] for point in points if point[0] == cell])
        if own.size:
            axes.plot(own[:, 0], 100 * own[:, 1], "o", color=colour, alpha=0.45, markersize=4)
            x, y = own.mean(axis=0)
            axes.plot([x], [100 * y], "X", color=colour, markersize=9, label=cell)
    axes.set(xlabel="KL from the starting policy, nats per answer", ylabel=f"{quantity}, %")
    axes.legend(frameon=False)


def _paint_margins(
    axes: "Axes",
    margins: Mapping[str, Sequence[NDArray[np.float64]]],
    colours: Mapping[str, str],
) -> None:
    """The mean over trainings, and their range. Trainings of other lengths are cut to the least."""
    for cell, runs in margins.items():
        if not runs:
            continue
        length = min(run.size for run in runs)
        table = np.vstack([run[:length] for run in runs])
        steps, colour = np.arange(1, length + 1), colours.get(cell, "#999999")
        axes.plot(steps, table.mean(axis=0), color=colour, label=cell)
        axes.fill_between(steps, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.12)
    axes.set(xlabel="optimiser step", ylabel="margin of the training pairs (implicit reward)")
    axes.legend(frameon=False)


def _drawn(
    panels: Sequence[Callable[["Axes"], None]], width: int, height: int, *, share_y: bool = False
) -> str:
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=share_y)[0]
        for panel, own in zip(panels, axes, strict=True):
            panel(own)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
