"""Sentences of the report: the headline, and remarks on how reliable the numbers are."""

import math
from typing import Literal, NamedTuple

from pvar.evaluation.paired import Interval
from pvar.gate import ABILITY_NOT_MEASURED
from tasks.report.data import Ability, Evaluation, Gate, GateCheck, PvarDistribution, ReportData

Tone = Literal["good", "bad", "neutral"]

NBSP = "\N{NO-BREAK SPACE}"

NOTABLE_LENGTH_CHANGE = 0.25
"""Relative change of the mean answer length from which the report warns about it."""
NOTABLE_ENDED_CHANGE = 0.05
"""Decrease of the share of answers that are not truncated above which the report warns."""
NOTABLE_SATURATION = 0.1
"""Share of saturated response pairs above which the report warns."""


class Headline(NamedTuple):
    """The outcome in a word and in a sentence."""

    word: str
    tone: Tone
    sentence: str
    """Begins with `word`."""


class Remark(NamedTuple):
    """A fact that makes the result more or less reliable."""

    tone: Tone
    text: str


def is_missing(value: object) -> bool:
    """Whether a value is None, NaN or infinite."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def percent(share: float, decimals: int = 0) -> str:
    """A share as text. Only exact values are shown as 0 or 100 %; others get a decimal."""
    if decimals == 0 and (0 < share < 0.01 or 0.99 < share < 1):
        decimals = 1
    return f"{minus(f'{100 * share:.{decimals}f}')}{NBSP}%"


def exact_percent(share: float) -> str:
    """A share with up to two decimals, for comparison with a bound."""
    return f"{minus(f'{100 * share:.2f}'.rstrip('0').rstrip('.'))}{NBSP}%"


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits."""
    return minus(f"{value:.{digits}g}")


def count(value: int) -> str:
    """An integer with a thousands separator."""
    return f"{value:,}".replace(",", NBSP)


def duration(seconds: float) -> str:
    """A duration as text: 0.4 s, 12 s, 2 min 5 s, 1 h 3 min."""
    if seconds < 9.95:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{NBSP}h {minutes}{NBSP}min"
    return f"{minutes}{NBSP}min {rest}{NBSP}s" if minutes else f"{rest}{NBSP}s"


def minus(text: str) -> str:
    """Replace hyphens by the typographic minus sign."""
    return text.replace("-", "−")


def headline(data: ReportData) -> Headline:
    """The outcome of the run in one sentence."""
    if data.failure is not None:
        reason = data.failure.message.strip().partition("\n")[0]
        word = data.failure.word.capitalize()
        return Headline(word, "bad", f"{word} in {data.failure.stage}: {reason}")
    word, tone = _outcome(data)
    begin = f"{word} for {data.waiting.what}" if data.waiting else word
    if data.evaluation is not None:
        return Headline(word, tone, f"{begin}: {_comparison(data.evaluation)}")
    reached = [row.node for row in data.stages if row.artifact is not None]
    until = f"the run ends after {reached[-1]}" if reached else "no stage has been completed"
    return Headline(word, tone, f"{begin}: {until}; nothing was evaluated.")


def _outcome(data: ReportData) -> tuple[str, Tone]:
    if data.waiting is not None:
        return "Waiting", "neutral"
    if data.gate is None:
        return ("No verdict" if data.evaluation is None else "Not decided"), "neutral"
    return ("Promoted", "good") if data.gate.promoted else ("Not promoted", "bad")


def lead(data: ReportData) -> str:
    """The text below the headline: how to resume the run, or why the gate failed."""
    if data.waiting is not None:
        return f"To go on: {data.waiting.how_to_go_on}."
    return "" if data.gate is None else refusal(data.gate)


def refusal(gate: Gate) -> str:
    """Why the model was not promoted: the failed checks and the note. Empty if it was promoted."""
    if gate.promoted:
        return ""
    failed = "; ".join(
        f"{check.check} {_checked(check, check.bound)} (it is {_checked(check, check.value)})"
        for check in gate.checks
        if not check.passed
    )
    return " ".join(part for part in (f"Not met: {failed}." if failed else "", gate.note) if part)


def _checked(check: GateCheck, value: float | None) -> str:
    if value is None or is_missing(value) or check.is_share:
        return _or_missing(value)
    return number(value, 4)


def _or_missing(share: float | None) -> str:
    return "missing" if share is None or is_missing(share) else exact_percent(share)


def _comparison(result: Evaluation) -> str:
    if result.win_rate is None or is_missing(result.win_rate):
        return f"none of {count(result.num_wanted)} held-out prompts has a verdict."
    return (
        f"the new model wins {percent(result.win_rate)}{interval(result)} of "
        f"{count(result.num_judged)} held-out prompts against {result.opponent}."
    )


def interval(result: Evaluation) -> str:
    """` (66–76 %)`, or an empty string if an end is missing."""
    ends = _ends(result)
    if ends is None:
        return ""
    return f" ({percent(ends.lower).removesuffix(f'{NBSP}%')}–{percent(ends.upper)})"


def _ends(result: Evaluation) -> Interval | None:
    lower, upper = result.ci_lower, result.ci_upper
    if lower is None or upper is None or is_missing(lower) or is_missing(upper):
        return None
    return Interval(lower, upper)


def remarks(data: ReportData) -> list[Remark]:
    """Facts for and against the reliability of the result."""
    found: list[Remark | None] = []
    if data.evaluation is not None:
        found += [_on_interval(data.evaluation), _on_coverage(data.evaluation)]
        found += [_on_length(data.evaluation), _on_endings(data.evaluation)]
        found.append(_on_ability(data.ability))
        if data.evaluation.circularity is not None:
            found.append(Remark("bad", data.evaluation.circularity))
    if data.distribution is not None:
        found += [_on_saturation(data.distribution), _on_ties(data.distribution)]
    found.append(_on_reward_model(data))
    return [remark for remark in found if remark is not None]


def _on_reward_model(data: ReportData) -> Remark | None:
    """The decision on the reward model that this run trained, if it did."""
    figures = next((row.figures for row in data.stages if row.stage == "adopt"), {})
    if not figures:
        return None
    if figures["adopted"]:
        return Remark("good", "The reward model passed its gate, and scores from the next run on.")
    return Remark("bad", f"The reward model was not adopted: {figures['reasons']}.")


def _on_interval(result: Evaluation) -> Remark:
    ends = _ends(result)
    if ends is None:
        return Remark("bad", "The win rate has no interval.")
    level = f"{percent(result.confidence)} interval"
    if ends.lower > 0.5:
        return Remark("good", f"The whole {level} is above even: more than chance.")
    if ends.upper < 0.5:
        return Remark("bad", f"The whole {level} is below even: the new model is worse.")
    return Remark("bad", f"The {level} includes even: the difference can be chance.")


def _on_coverage(result: Evaluation) -> Remark:
    judged, wanted = count(result.num_judged), count(result.num_wanted)
    if result.num_judged < result.num_wanted:
        return Remark("bad", f"Only {judged} of {wanted} held-out prompts have a verdict.")
    return Remark("good", f"All {wanted} held-out prompts have a verdict.")


def _on_length(result: Evaluation) -> Remark | None:
    before, after = result.opponent_answers.mean_tokens, result.challenger_answers.mean_tokens
    if not before or after is None or is_missing(before) or is_missing(after):
        return None
    change = after / before - 1
    if abs(change) < NOTABLE_LENGTH_CHANGE:
        return Remark("good", "The answers are about as long as before.")
    word = "longer" if change > 0 else "shorter"
    return Remark(
        "bad", f"The new answers are {percent(abs(change))} {word}: length can bias a judge."
    )


def _on_endings(result: Evaluation) -> Remark | None:
    before, after = result.opponent_answers.ended_share, result.challenger_answers.ended_share
    if before is None or after is None or is_missing(before) or is_missing(after):
        return None
    tone: Tone = "bad" if before - after > NOTABLE_ENDED_CHANGE else "good"
    return Remark(
        tone, f"{percent(after)} of the new answers are not truncated, {percent(before)} before."
    )


def _on_ability(ability: Ability | None) -> Remark:
    if ability is None:
        return Remark("neutral", f"{ABILITY_NOT_MEASURED.capitalize()}.")
    if ability.change is None or ability.ci_lower is None or ability.ci_upper is None:
        return Remark("bad", "No ability question was answered by both models.")
    tone: Tone = "neutral"
    says = "The change of ability can be chance"
    if ability.ci_upper < 0:
        tone, says = "bad", "Ability fell"
    elif ability.ci_lower > 0:
        tone, says = "good", "Ability rose"
    return Remark(
        tone,
        f"{says}: {_or_missing(ability.after)} of {count(ability.num_questions)} questions are "
        f"answered right, {_or_missing(ability.before)} before: {ability_change_text(ability)}.",
    )


def ability_change_text(ability: Ability) -> str:
    """`−3 points (−12 to +6)`, in percentage points; empty if missing."""
    change, lower, upper = ability.change, ability.ci_lower, ability.ci_upper
    if change is None or lower is None or upper is None:
        return ""
    return f"{_points(change)}{NBSP}points ({_points(lower)} to {_points(upper)})"


def _points(change: float) -> str:
    points = round(100 * change)
    return minus(f"{points:+d}") if points else "0"


def _on_saturation(pvar: PvarDistribution) -> Remark | None:
    for scale in pvar.scales:
        share = scale.saturation_share
        if share is not None and share > NOTABLE_SATURATION:
            return Remark(
                "bad",
                f"{percent(share)} of the response pairs are saturated under {scale.name}: "
                "PVar cannot distinguish prompts by them; a larger reward scale could.",
            )
    return None


def _on_ties(pvar: PvarDistribution) -> Remark | None:
    ties = pvar.num_tied_at_cut
    if ties is None or ties < 2:
        return None
    return Remark("bad", f"{count(ties)} prompts tie at the cut; the selection used their ids.")
