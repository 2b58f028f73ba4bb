"""The gate: may the trained model become the champion? A pure function with its reasons.

It looks at the lower end of the paired win rate's interval, not at the win rate: a tie, a lucky
draw or a handful of prompts do not promote. Missing figures fail their check.

Ability must be shown not to have fallen by more than a bound (a test of non-inferiority): the lower
end of the interval of its change must be at least −`max_ability_loss`. That a loss was not proved
would not do, for a few questions never prove one. So a handful cannot pass: even where both models
answer every one of n questions alike, the 95 % interval reaches down to −(1 − 0.025^(1/n)), which
is 52 % for 5 questions, 20 % for 17 and 10 % for 36. Where a tenth of the answers turns right and a
tenth wrong (a spread of 0.45), about 20 questions can show a loss within 20 %, and 80 within 10 %.
"""

import math
from typing import NamedTuple

from pvar.config import USUAL_MAX_ABILITY_LOSS, PromoteConfig

ABILITY_NOT_MEASURED = "ability not measured: no rows with an answer"


class GateFigures(NamedTuple):
    """What is known of the challenger, against its opponent on the same prompts."""

    win_rate_lower: float
    """Lower end of the paired win rate's interval, in [0, 1]; NaN where nothing was judged."""
    coverage: float
    """Share of the evaluation prompts with a verdict."""
    ended_share: float
    """Share of the challenger's answers that ended by themselves."""
    ability_change_lower: float | None
    """Lower end of the interval of the change of ability, in [−1, 1]; NaN where no question was
    answered, None where the source has no questions."""


class Check(NamedTuple):
    """One condition of the gate."""

    name: str
    value: float
    bound: float
    passed: bool


class GateDecision(NamedTuple):
    """Pass or fail, and why."""

    passed: bool
    checks: tuple[Check, ...]
    note: str = ""
    """What was not checked, and why."""


def decide_promotion(figures: GateFigures, gate: PromoteConfig) -> GateDecision:
    """Apply every check; all must pass. The win rate must be above its bound, not at it.

    Ability is not checked where the source has no questions, unless the gate names a bound for it.
    """
    checks = [
        Check(
            "win_rate_lower",
            figures.win_rate_lower,
            gate.min_win_rate,
            figures.win_rate_lower > gate.min_win_rate,
        ),
        _at_least("coverage", figures.coverage, gate.min_coverage),
        _at_least("ended_share", figures.ended_share, gate.min_ended_share),
    ]
    lower, max_loss = figures.ability_change_lower, gate.max_ability_loss
    if lower is not None or max_loss is not None:
        bound = 0 - (USUAL_MAX_ABILITY_LOSS if max_loss is None else max_loss)
        checks.append(
            _at_least("ability_change_lower", math.nan if lower is None else lower, bound)
        )
    return GateDecision(
        all(check.passed for check in checks),
        tuple(checks),
        ABILITY_NOT_MEASURED if lower is None else "",
    )


def _at_least(name: str, value: float, bound: float) -> Check:
    return Check(name, value, bound, not math.isnan(value) and value >= bound)
