"""Figures of the page of rounds, in the style of the report's. Arrays: R rounds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.pool_variance import QUANTILES
from pvar.round_rules import RoundResult
from tasks.report.figures import ACCENT, MUTED, QUIET, WARM, draw_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHARES = ([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


class _Line(NamedTuple):
    name: str
    """Label, and id in the SVG."""
    values: NDArray[np.float64]
    """(R,) NaN where it is not known."""
    colour: str
    ends: NDArray[np.float64] | None = None
    """(2, R) interval."""


def rounds_figures(rounds: Sequence[RoundResult]) -> dict[str, str]:
    """SVG by name: `pvar`, `shares`, `win_rate`, `kl`, `ability`. One without data is left out."""
    numbers = np.array([each.number for each in rounds])
    figures = {"pvar": _pvar_figure(numbers, rounds)}
    shares = [
        _Line("above the first median", _column(rounds, "pool", "share_above"), ACCENT),
        _Line("saturated pairs", _column(rounds, "pool", "saturated_share"), WARM),
    ]
    figures["shares"] = _lines_figure("shares", numbers, shares, is_share=True)
    against = [
        _rate("against the champion", "", ACCENT, rounds),
        _rate("against the first model", "first_", MUTED, rounds),
    ]
    figures["win_rate"] = _lines_figure("win-rate", numbers, against, is_share=True, even=0.5)
    ability = [_Line("ability", _column(rounds, "ability"), ACCENT)]
    figures["ability"] = _lines_figure("ability", numbers, ability, is_share=True)
    divergence = [_Line("nats per answer", _column(rounds, "kl_since_first"), ACCENT)]
    figures["kl"] = _lines_figure("kl", numbers, divergence)
    return {name: svg for name, svg in figures.items() if svg}


def _column(rounds: Sequence[RoundResult], *path: str) -> NDArray[np.float64]:
    values: list[object] = list(rounds)
    for name in path:
        values = [getattr(value, name) for value in values]
    return np.array(values, dtype=np.float64)  # None is NaN


def _rate(label: str, prefix: str, colour: str, rounds: Sequence[RoundResult]) -> _Line:
    ends = [_column(rounds, f"{prefix}win_rate_{end}") for end in ("lower", "upper")]
    return _Line(label, _column(rounds, f"{prefix}win_rate"), colour, np.array(ends))


def _pvar_figure(numbers: NDArray[np.int_], rounds: Sequence[RoundResult]) -> str:
    """The mean, with the ranges of the middle half and of the middle four fifths of the prompts."""
    known = [each for each in rounds if each.pool.mean is not None]
    if not known:
        return ""
    means = [f"{each.pool.mean:.3g}" for each in known]
    label = f"Mean PVar of the pool by round: {means[0]} at first, {means[-1]} at last."
    at = np.array([each.number for each in known])
    lowest, low, _, high, highest = np.array([each.pool.quantiles for each in known]).T
    assert len(QUANTILES) == 5

    def paint(axes: "Axes") -> None:
        axes.vlines(at, lowest, highest, color=QUIET, linewidth=2, gid="middle-four-fifths")
        axes.vlines(at, low, high, color=QUIET, linewidth=7, gid="middle-half")
        axes.plot(at, _column(known, "pool", "mean"), "o-", color=ACCENT, gid="mean")
        axes.set_ylim(bottom=0)
        _finish(axes, numbers)

    return draw_figure(paint, "rounds-pvar", label, width=380, height=205)


def _lines_figure(
    name: str,
    numbers: NDArray[np.int_],
    lines: Sequence[_Line],
    *,
    is_share: bool = False,
    even: float | None = None,
) -> str:
    """The quantities over the rounds, labelled at their ends if there are several."""
    known = [line for line in lines if np.isfinite(line.values).any()]
    if not known:
        return ""
    label = f"By round: {', '.join(line.name for line in known)}."

    def paint(axes: "Axes") -> None:
        for line in known:
            if line.ends is not None:
                axes.vlines(numbers, *line.ends, color=line.colour, linewidth=2, alpha=0.35)
            axes.plot(numbers, line.values, "o-", color=line.colour, gid=line.name, label=line.name)
        if even is not None:
            axes.axhline(even, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        if is_share:
            axes.set_yticks(*_SHARES)
            axes.set_ylim(-0.03, 1.03)
        if len(known) > 1:
            axes.legend(frameon=False, fontsize=9)
        _finish(axes, numbers)

    return draw_figure(paint, f"rounds-{name}", label, width=380, height=205)


def _finish(axes: "Axes", numbers: NDArray[np.int_]) -> None:
    axes.set_xlabel("round")
    axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    axes.grid(visible=True, axis="y")
    axes.locator_params(axis="x", integer=True)
