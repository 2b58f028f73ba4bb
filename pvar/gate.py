"""The promotion gate: decides whether the trained model becomes the champion, and why.

The gate uses the lower bound of the paired win rate's interval instead of the win rate itself: a
tie, a lucky draw or a handful of prompts do not promote a model. Missing metrics fail their check.

The ability check is a test of non-inferiority: the lower bound of the change must be at least
−`max_ability_loss`. Not finding a significant loss is not enough, because a few questions never
show one. So a handful of questions cannot pass: even if both models answer every one of n questions
alike, the 95 % interval reaches down to −(1 − 0.025^(1/n)), which is 52 % for 5 questions, 20 % for
17 and 10 % for 36. So the default bound needs at least 17. If a tenth of the answers becomes
correct and a tenth incorrect (a spread of 0.45), a bound of 20 % needs about 20 questions, and a
bound of 10 % about 80.

An exam that is asked again and again promotes by luck. With `alpha_budget`, the lower bound must
hold at the level of this look at the exam, too (`pvar/evaluation/alpha_spending.py`).

A model that is retrained often can lose a little each time, and no single comparison shows it. So
`max_total_ability_loss` is the same test against the first model. `max_total_divergence` bounds how
far the answers have drifted from that model, whatever a judge thinks of them: the upper bound of
the KL divergence must be at most this value.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from pvar.evaluate_config import USUAL_MAX_ABILITY_LOSS, PromoteConfig

BENCHMARK_CHECK = "benchmark-"
"""Prefix of the checks of benchmarks; the rest is the benchmark's name."""

ABILITY_NOT_MEASURED = "ability not measured: no rows with an answer"


class GateFigures(NamedTuple):
    """Metrics of the challenger, compared with its opponent on the same prompts."""

    win_rate_lower: float
    """Lower bound of the paired win rate, in [0, 1]; NaN if nothing was judged."""
    coverage: float
    """Fraction of the evaluation prompts with a verdict."""
    ended_share: float
    """Fraction of the challenger's answers that finished (were not truncated)."""
    ability_change_lower: float | None
    """Lower bound of the change of ability, in [−1, 1]; NaN if no question was answered, None if
    the source has no questions."""
    win_rate_lower_at_look: float | None = None
    """Lower bound of the win rate at the level of this look at the exam; None without a budget."""
    total_ability_change_lower: float | None = None
    """The same against the first model; None if there was no such comparison."""
    total_divergence_upper: float | None = None
    """Upper bound of the KL divergence from the first model, in nats per answer; None if it was not
    estimated."""
    benchmark_differences: Mapping[str, float] = {}
    """Lower bound of the difference from the opponent on each benchmark that the gate names, in
    percentage points; NaN if it was not measured."""


class Check(NamedTuple):
    """One condition of the gate."""

    name: str
    value: float
    bound: float
    passed: bool


class GateDecision(NamedTuple):
    """The outcome of the gate, and its reasons."""

    passed: bool
    checks: tuple[Check, ...]
    note: str = ""
    """What was not checked, and why."""


def decide_promotion(figures: GateFigures, gate: PromoteConfig) -> GateDecision:
    """Apply every check; all must pass. The win rate must be above its bound, not at it.

    Without ability questions, ability is checked (and fails) only if max_ability_loss is set.
    """
    checks = [
        Check(
            "win_rate_lower",
            figures.win_rate_lower,
            gate.min_win_rate,
            figures.win_rate_lower > gate.min_win_rate,
        ),
        *_at_look(figures.win_rate_lower_at_look, gate),
        _at_least("coverage", figures.coverage, gate.min_coverage),
        _at_least("ended_share", figures.ended_share, gate.min_ended_share),
    ]
    lower, max_loss = figures.ability_change_lower, gate.max_ability_loss
    if lower is not None or max_loss is not None:
        bound = 0 - (USUAL_MAX_ABILITY_LOSS if max_loss is None else max_loss)
        checks.append(
            _at_least("ability_change_lower", math.nan if lower is None else lower, bound)
        )
    if gate.max_total_ability_loss is not None:
        total = figures.total_ability_change_lower
        checks.append(
            _at_least(
                "total_ability_change_lower",
                math.nan if total is None else total,
                0 - gate.max_total_ability_loss,
            )
        )
    if gate.max_total_divergence is not None:
        upper, limit = figures.total_divergence_upper, gate.max_total_divergence
        value = math.nan if upper is None else upper
        checks.append(Check("total_divergence_upper", value, limit, value <= limit))
    checks += [
        _at_least(
            f"{BENCHMARK_CHECK}{required.name}",
            figures.benchmark_differences.get(required.name, math.nan),
            required.bound,
        )
        for required in gate.benchmarks
    ]
    return GateDecision(
        all(check.passed for check in checks),
        tuple(checks),
        ABILITY_NOT_MEASURED if lower is None else "",
    )


def _at_look(lower: float | None, gate: PromoteConfig) -> list[Check]:
    """The win rate again, at the level that the budget leaves for this look at the exam.

    With `mode: never` there is no look, because the comparison cannot promote.
    """
    if gate.alpha_budget is None or gate.mode == "never":
        return []
    value, bound = math.nan if lower is None else lower, gate.min_win_rate
    return [Check("win_rate_lower_at_look", value, bound, value > bound)]


def _at_least(name: str, value: float, bound: float) -> Check:
    return Check(name, value, bound, not math.isnan(value) and value >= bound)
