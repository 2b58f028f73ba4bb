"""The gate: may the trained model become the champion? A pure function with its reasons.

It looks at the lower end of the paired win rate's interval, not at the win rate: a tie, a lucky
draw or a handful of prompts do not promote. Missing figures fail their check.
"""

import math
from typing import NamedTuple

from pvar.config import PromoteConfig


class GateFigures(NamedTuple):
    """What is known of the challenger, against its opponent on the same prompts."""

    win_rate_lower: float
    """Lower end of the paired win rate's interval, in [0, 1]; NaN where nothing was judged."""
    coverage: float
    """Share of the evaluation prompts with a verdict."""
    ended_share: float
    """Share of the challenger's answers that ended by themselves."""


class Check(NamedTuple):
    """One condition of the gate."""

    name: str
    value: float
    bound: float
    passed: bool


class Decision(NamedTuple):
    """Pass or fail, and why."""

    passed: bool
    checks: tuple[Check, ...]


def decide(figures: GateFigures, gate: PromoteConfig) -> Decision:
    """Apply every check; all must pass. The win rate must be above its bound, not at it."""
    checks = (
        Check(
            "win_rate_lower",
            figures.win_rate_lower,
            gate.min_win_rate,
            figures.win_rate_lower > gate.min_win_rate,
        ),
        _at_least("coverage", figures.coverage, gate.min_coverage),
        _at_least("ended_share", figures.ended_share, gate.min_ended_share),
    )
    return Decision(all(check.passed for check in checks), checks)


def _at_least(name: str, value: float, bound: float) -> Check:
    return Check(name, value, bound, not math.isnan(value) and value >= bound)
