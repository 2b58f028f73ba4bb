"""Figures of the page of a backtest: one quantity each, all policies, over the simulated time.

A filled dot is a model that was promoted, an open one a model that was not. Arrays: B batches.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.backtest_result import BacktestedPolicy, SimulatedBatch, SimulatedRate
from tasks.report.figures import ACCENT, INK, MUTED, QUIET, WARM, draw_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = tuple(
    (colour, line) for line in ("-", (0, (4, 2)), (0, (1, 1.5))) for colour in (ACCENT, WARM, INK)
)
"""Colour and line of the policies, in their order; further ones begin again."""
DAY_SECONDS = 86_400
NUM_DATES = 4
SHIFT = 0.008
"""Between policies, as a share of the time that is shown."""
_SHARES = ([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


class _Line(NamedTuple):
    policy: str
    days: NDArray[np.float64]
    """(B,) simulated time, in days since 1970."""
    values: NDArray[np.float64]
    """(B,) NaN where it is not known."""
    ends: NDArray[np.float64] | None
    """(2, B) interval."""
    is_promoted: NDArray[np.bool_]


def backtest_figures(policies: Sequence[BacktestedPolicy]) -> dict[str, str]:
    """SVG by name: `first`, `champion`, `ability`, `agreement MODEL`, `benchmark NAME`.
    Without data: left out."""
    figures = {
        "first": _rates(policies, "first", lambda batch: batch.against_first),
        "champion": _rates(policies, "champion", lambda batch: batch.against_champion),
        "ability": _figure(
            "ability",
            [_line(each, lambda batch: batch.ability) for each in policies],
            is_share=True,
        ),
    }
    agreed = {name for each in policies for batch in each.batches for name in batch.agreement}
    for number, name in enumerate(sorted(agreed)):
        lines = [_line(each, _agreement(name)) for each in policies]
        figures[f"agreement {name}"] = _figure(f"agreement-{number}", lines, is_share=True)
    names = {name for each in policies for batch in each.batches for name in batch.benchmarks}
    for number, name in enumerate(sorted(names)):
        lines = [_line(each, _score(name)) for each in policies]
        figures[f"benchmark {name}"] = _figure(f"benchmark-{number}", lines)
    return {name: svg for name, svg in figures.items() if svg}


def _agreement(name: str) -> Callable[[SimulatedBatch], float | None]:
    return lambda batch: batch.agreement.get(name)


def _score(name: str) -> Callable[[SimulatedBatch], float | None]:
    return lambda batch: batch.benchmarks.get(name)


def _rates(
    policies: Sequence[BacktestedPolicy],
    name: str,
    rate_of: Callable[[SimulatedBatch], SimulatedRate | None],
) -> str:
    def part(which: str) -> Callable[[SimulatedBatch], float | None]:
        return lambda batch: getattr(rate_of(batch), which, None)

    lines = [
        _line(each, part("rate"))._replace(
            ends=np.array([_values(each, part(end)) for end in ("lower", "upper")])
        )
        for each in policies
    ]
    return _figure(name, lines, is_share=True, even=0.5)


def _line(policy: BacktestedPolicy, value_of: Callable[[SimulatedBatch], float | None]) -> _Line:
    return _Line(
        policy.name,
        np.array(
            [batch.made_at.timestamp() / DAY_SECONDS for batch in policy.batches], dtype=np.float64
        ),
        _values(policy, value_of),
        None,
        np.array([batch.fate == "promoted" for batch in policy.batches], dtype=np.bool_),
    )


def _values(
    policy: BacktestedPolicy, value_of: Callable[[SimulatedBatch], float | None]
) -> NDArray[np.float64]:
    return np.array([value_of(batch) for batch in policy.batches], dtype=np.float64)  # None is NaN


def _figure(
    name: str, lines: Sequence[_Line], *, is_share: bool = False, even: float | None = None
) -> str:
    known = [
        (line, style)
        for line, style in zip(lines, _STYLES * 2, strict=False)
        if np.isfinite(line.values).any()
    ]
    if not known:
        return ""
    ranges = (
        f"{line.policy} {line.values[np.isfinite(line.values)][0]:.3g} at first, "
        f"{line.values[np.isfinite(line.values)][-1]:.3g} at last"
        for line, _ in known
    )

    days = np.concatenate([line.days for line, _ in known])

    def paint(axes: "Axes") -> None:
        for number, (line, (colour, style)) in enumerate(known):
            _paint_line(axes, line, colour, style, shift=SHIFT * number * np.ptp(days))
        if even is not None:
            axes.axhline(even, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        if is_share:
            axes.set_yticks(*_SHARES)
            axes.set_ylim(-0.03, 1.03)
        if len(known) > 1:
            axes.legend(frameon=False, fontsize=9)
        _paint_dates(axes, days)

    return draw_figure(
        paint, f"backtest-{name}", f"Over the simulated time: {'; '.join(ranges)}.",
        width=380, height=220,
    )  # fmt: skip


def _paint_line(
    axes: "Axes",
    line: _Line,
    colour: str,
    style: "str | tuple[int, tuple[float, ...]]",
    shift: float,
) -> None:
    """Shifted a little, so that the intervals of policies lie side by side."""
    days = line.days + shift
    if line.ends is not None:
        axes.vlines(days, *line.ends, color=QUIET, linewidth=2)
    axes.plot(
        days,
        line.values,
        linewidth=1.1,
        linestyle=style,
        color=colour,
        gid=line.policy,
        label=line.policy,
    )
    for is_promoted, fill in ((True, colour), (False, "none")):
        wanted = line.is_promoted == is_promoted
        axes.plot(
            days[wanted], line.values[wanted], "o", color=colour, markersize=5.5,
            markerfacecolor=fill, gid=f"{line.policy}-{'promoted' if is_promoted else 'not'}",
        )  # fmt: skip


def _paint_dates(axes: "Axes", days: NDArray[np.float64]) -> None:
    """A few dates, the first and the last among them."""
    ticks = np.unique(np.round(np.linspace(days.min(), days.max(), NUM_DATES)))
    dates = [datetime.fromtimestamp(tick * DAY_SECONDS, UTC) for tick in ticks]
    axes.set_xticks(ticks, [f"{date:%Y-%m-%d}" for date in dates])
    axes.grid(visible=True, axis="y")
