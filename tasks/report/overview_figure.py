"""The win rates of runs over time, in the style of the report's figures."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasks.report.figures import ACCENT, MUTED, QUIET, WARM, draw_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class RatePoint(NamedTuple):
    """The win rate of one run. Rates are in [0, 1]."""

    at: datetime
    win_rate: float
    lower: float | None
    upper: float | None
    passed: bool
    """Whether it passed its gate."""


def win_rates_figure(points: Sequence[RatePoint]) -> str:
    """Win rates with their intervals, oldest first; empty if there is none."""
    if not points:
        return ""
    at = np.array([each.at.replace(tzinfo=None) for each in points], dtype="datetime64[s]")
    rates, lower, upper = np.array([each[1:4] for each in points], dtype=np.float64).T
    passed = np.array([each.passed for each in points], dtype=bool)
    label = (
        f"Win rates of {len(points)} runs with their intervals: {rates[0]:.0%} at first, "
        f"{rates[-1]:.0%} at last; {passed.sum()} passed the gate."
    )

    def paint(axes: "Axes") -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        width = 2.5 if len(points) <= 100 else 1
        axes.vlines(at, lower, upper, color=QUIET, linewidth=width, gid="intervals")
        if passed.any():
            axes.plot(at[passed], rates[passed], "o", color=ACCENT, gid="passed")
        if not passed.all():
            axes.plot(at[~passed], rates[~passed], "D", color=WARM, gid="others")
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "even", "75 %", "100 %"])
        axes.set_ylim(-0.03, 1.03)
        if at[0] == at[-1]:  # an axis of years otherwise
            half_a_day = np.timedelta64(12, "h")
            axes.set_xlim(at[0] - half_a_day, at[0] + half_a_day)
        locator: Any = AutoDateLocator(minticks=2, maxticks=7)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.grid(visible=True, axis="y")

    return draw_figure(paint, "win-rates", label, width=760, height=230)
