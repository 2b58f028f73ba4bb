"""The report of a run: one self-contained HTML page.

The page answers a reader's questions in this order: did it work, can it be trusted, what did the
model learn from, what does it say now, how was it made. It uses no network and no JavaScript, and
its content security policy forbids both. Prompts and answers are untrusted text, so every value is
escaped and control characters are replaced.
"""

import math
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from tasks.report.data import ReportData, ScoredResponse
from tasks.report.figures import (
    correlation_figure,
    exam_figure,
    pvar_figure,
    training_figures,
    win_rate_figure,
)
from tasks.report.text import (
    ability_change_text,
    count,
    duration,
    exact_percent,
    headline,
    interval,
    is_missing,
    lead,
    minus,
    number,
    percent,
    remarks,
)

if TYPE_CHECKING:
    from jinja2 import Environment

NUM_OPEN_SAMPLES = 6
"""Number of sample answers that are shown without unfolding."""

MOST_FILES = 20
"""Files of one artifact that are named. A model can have more."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_CLICKABLE = re.compile(r"(https?|file)://", re.IGNORECASE)
_Value = TypeVar("_Value")


class RewardRange(NamedTuple):
    """Smallest and largest reward of all examples, the common axis of their reward strips."""

    lowest: float
    highest: float

    def position(self, reward: float) -> float:
        """Position of a reward on the strip, in percent of its length."""
        width = self.highest - self.lowest
        return round(100 * (reward - self.lowest) / width, 1) if width else 50.0

    def write(self, reward: float) -> str:
        """A reward with enough decimals to distinguish a hundredth of the axis."""
        width = self.highest - self.lowest
        return minus(f"{reward:.{max(0, 2 - math.floor(math.log10(width))) if width else 2}f}")


def render_report(data: ReportData) -> str:
    """The page as text, to be written as UTF-8. The same data gives the same text."""
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            headline=headline(data),
            lead=lead(data),
            interval="" if data.evaluation is None else interval(data.evaluation).strip(),
            remarks=remarks(data),
            figures=_figures(data),
            reward_range=_reward_range(data),
            total_seconds=_total_seconds(data),
            longest_seconds=max((row.seconds or 0 for row in data.stages), default=0),
            num_open_samples=NUM_OPEN_SAMPLES,
            most_files=MOST_FILES,
        )
    )


def _figures(data: ReportData) -> dict[str, str]:
    """SVG by name. Figures without data are absent."""
    figures = training_figures(data.steps)
    result, pvar = data.evaluation, data.distribution
    if result is not None:
        rate, lower, upper = (
            math.nan if value is None else value
            for value in (result.win_rate, result.ci_lower, result.ci_upper)
        )
        if math.isfinite(rate + lower + upper):
            figures["win_rate"] = win_rate_figure(rate, lower, upper, result.counts)
    if pvar is not None and not all(map(is_missing, pvar.pvar.tolist())):
        figures["pvar"] = pvar_figure(pvar.pvar, pvar.selected, pvar.cut)
    if data.exam_curve is not None and (curve := exam_figure(data.exam_curve)):
        figures["exam"] = curve
    if correlations := correlation_figure(data.correlations):
        figures["correlation"] = correlations
    return figures


def _reward_range(data: ReportData) -> RewardRange | None:
    rewards = [
        response.reward
        for example in (*data.highest, *data.lowest)
        for response in example.responses
        if response.reward is not None and not is_missing(response.reward)
    ]
    return RewardRange(min(rewards), max(rewards)) if rewards else None


def _total_seconds(data: ReportData) -> float | None:
    seconds = [row.seconds for row in data.stages if row.seconds is not None]
    return sum(seconds) if seconds else None


@cache
def page_environment() -> "Environment":
    """Jinja with the templates and filters of all pages. Values are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        percent=lambda share, decimals=0: None if is_missing(share) else percent(share, decimals),
        exact_percent=_unless_missing(exact_percent),
        number=_unless_missing(number),
        thousands=_unless_missing(count),
        duration=_unless_missing(duration),
        figure=_unless_missing(_figure),
        best_first=_best_first,
        ability_change=ability_change_text,
    )
    environment.tests["missing"] = is_missing
    environment.tests["blank"] = lambda text: not text.strip()
    environment.tests["clickable"] = lambda target: bool(_CLICKABLE.match(target))
    return environment


def _shown(value: object) -> object:
    """The displayed text of a value. Missing values are labelled; control characters replaced."""
    from markupsafe import Markup

    if is_missing(value):
        return Markup('<span class="missing">missing</span>')
    if isinstance(value, str) and not isinstance(value, Markup):
        return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    return value


def _unless_missing(write: Callable[[_Value], str]) -> Callable[[_Value | None], str | None]:
    return lambda value: None if value is None or is_missing(value) else write(value)


def _figure(value: float | int | str) -> str:
    """Text of a figure of a stage's summary, of any type."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return number(value, 4) if isinstance(value, float) else value


def _best_first(responses: tuple[ScoredResponse, ...]) -> list[ScoredResponse]:
    """Responses by reward, highest first, and responses without a reward last."""

    def rank(response: ScoredResponse) -> float:
        reward = response.reward
        return math.inf if reward is None or is_missing(reward) else -reward

    return sorted(responses, key=rank)
