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

A check that no model can fail is no evidence. If the opponent answers (nearly) no question
correctly, a model that has lost everything loses next to nothing. So a bound on ability counts only
if a model without one correct answer would fail it, and a bound on a benchmark's loss only if a
score of 0 would. Otherwise the measure is not measurable, and what was required fails. A bound of 1
(100 points) allows every loss that was measured.

An exam that is asked again and again promotes by luck. With `alpha_budget`, the lower bound must
hold at the level of this look at the exam, too (`pvar/evaluation/alpha_spending.py`).

A model that is retrained often can lose a little each time, and no single comparison shows it. So
`max_total_ability_loss` is the same test against the first model. `max_total_divergence` bounds how
far the answers have drifted from that model, whatever a judge thinks of them: the upper bound of
the KL divergence must be at most this value.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pvar.benchmark_config import BenchmarkGate
from pvar.evaluate_config import USUAL_MAX_ABILITY_LOSS, PromoteConfig

BENCHMARK_CHECK = "benchmark-"
"""Prefix of the checks of benchmarks; the rest is the benchmark's name."""

ABILITY_NOT_MEASURED = "ability not measured: no ability questions"
ABILITY_NOT_MEASURABLE = "ability not measurable"


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
    ability_lost_lower: float = math.nan
    """What that bound would be if the challenger had answered no question correctly; NaN if it is
    not known, so that nothing shows that the check can fail."""
    win_rate_lower_at_look: float | None = None
    """Lower bound of the win rate at the level of this look at the exam; None without a budget."""
    total_ability_change_lower: float | None = None
    """The change of ability against the first model; None if there was no such comparison."""
    total_ability_lost_lower: float = math.nan
    """`ability_lost_lower` against the first model."""
    total_divergence_upper: float | None = None
    """Upper bound of the KL divergence from the first model, in nats per answer; None if it was not
    estimated."""
    benchmark_differences: Mapping[str, float] = {}
    """Lower bound of the difference from the opponent on each benchmark that the gate names, in
    percentage points; NaN if it was not measured."""
    opponent_scores: Mapping[str, float] = {}
    """The opponent's score on each of these benchmarks, in percent."""


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

    Without ability questions, ability is checked (and fails) only if max_ability_loss is set. A
    check of ability or of a benchmark that no model could fail is not passed: it fails, with a
    missing value, or is left out if the user did not ask for it.
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
    notes = [ABILITY_NOT_MEASURED] if figures.ability_change_lower is None else []
    for check in (_ability(figures, gate), _total_ability(figures, gate)):
        if check is None:
            continue
        if check.no_evidence:
            notes.append(check.no_evidence)
        if check.counts:
            checks.append(check.check)
    if gate.max_total_divergence is not None:
        upper, limit = figures.total_divergence_upper, gate.max_total_divergence
        value = math.nan if upper is None else upper
        checks.append(Check("total_divergence_upper", value, limit, value <= limit))
    for required in gate.benchmarks:
        on_benchmark = _on_benchmark(required, figures)
        checks.append(on_benchmark.check)
        if on_benchmark.no_evidence:
            notes.append(on_benchmark.no_evidence)
    return GateDecision(all(check.passed for check in checks), tuple(checks), "; ".join(notes))


def without_ability(note: str, *others: str) -> str:
    """The note without its part on ability that was not measured, and without these parts."""
    said = {ABILITY_NOT_MEASURED, *others}
    return "; ".join(part for part in note.split("; ") if part not in said)


def with_stand_ins(decision: GateDecision, stand_ins: Sequence[str]) -> GateDecision:
    """The decision whose note says what the figures rest on that is no real model."""
    return decision._replace(note="; ".join(filter(None, (decision.note, *stand_ins))))


class _LossCheck(NamedTuple):
    """A check of a loss, and why passing it is no evidence."""

    check: Check
    no_evidence: str = ""
    counts: bool = True


def _ability(figures: GateFigures, gate: PromoteConfig) -> _LossCheck | None:
    lower, max_loss = figures.ability_change_lower, gate.max_ability_loss
    if lower is None and max_loss is None:
        return None
    return _of_ability(
        "ability_change_lower",
        math.nan if lower is None else lower,
        figures.ability_lost_lower,
        USUAL_MAX_ABILITY_LOSS if max_loss is None else max_loss,
        is_required=max_loss is not None,
    )


def _total_ability(figures: GateFigures, gate: PromoteConfig) -> _LossCheck | None:
    lower, max_loss = figures.total_ability_change_lower, gate.max_total_ability_loss
    if max_loss is None:
        return None
    return _of_ability(
        "total_ability_change_lower",
        math.nan if lower is None else lower,
        figures.total_ability_lost_lower,
        max_loss,
        is_required=True,
    )


def _of_ability(
    name: str, lower: float, lost: float, max_loss: float, *, is_required: bool
) -> _LossCheck:
    """The check of a change of ability; `lost` is its lower bound if all were lost."""
    bound = 0 - max_loss
    check = _at_least(name, lower, bound)
    if not check.passed or max_loss >= 1 or lost < bound:
        return _LossCheck(check)
    opponent = "first model" if name == "total_ability_change_lower" else "opponent"
    worst = "unknown" if math.isnan(lost) else f"{lost:.1%}"
    return _LossCheck(
        Check(name, math.nan, bound, passed=False),
        f"{ABILITY_NOT_MEASURABLE} against the {opponent}: without one correct answer the lower "
        f"end of the change is {worst}, and {bound:.1%} is allowed; give questions that the "
        f"{opponent} can answer, with the final answer alone in `answer`",
        counts=is_required,
    )


def _on_benchmark(required: BenchmarkGate, figures: GateFigures) -> _LossCheck:
    """The check of a benchmark; scores and differences are in percentage points."""
    name, bound = f"{BENCHMARK_CHECK}{required.name}", required.bound
    check = _at_least(name, figures.benchmark_differences.get(required.name, math.nan), bound)
    score = figures.opponent_scores.get(required.name, math.nan)
    if not check.passed or bound > 0 or bound <= -100 or score > -bound:
        return _LossCheck(check)
    found = "not known" if math.isnan(score) else f"{score:.1f} %"
    return _LossCheck(
        Check(name, math.nan, bound, passed=False),
        f"benchmark {required.name} not measurable: the opponent's score is {found} and a loss of "
        f"{-bound:g} points is allowed, so that a score of 0 would pass, too; use a benchmark that "
        "the opponent can do, or remove it from promote.benchmarks",
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
