"""The result of judging a set of pairs: preferences, coverage and position consistency.

    preference   of the challenger, mean over the pair's showings; missing if a verdict is missing
    coverage     pairs with a preference / all pairs; below the required coverage nothing is final
    consistency  share of the pairs judged in both orders in which both verdicts name the same side

A showing is one pair judged in one order. If one of two showings is missing, the pair has no
preference, because the other showing alone would bring the position bias back.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pvar.errors import BudgetError, CoverageError, JudgeError
from pvar.evaluation.alpaca_eval_judge import JudgeForm, form_of
from pvar.judging import JudgeBudget
from pvar.records import Verdict

BUDGET_SPENT = "budget_spent"
"""Reason of a showing that was not judged because the budget was spent."""


class Showing(NamedTuple):
    """One pair in one order."""

    is_swapped: bool
    """The challenger's answer was shown first."""
    preference: float | None
    """Probability in [0, 1] that the challenger's answer is better."""
    evidence: str | None
    """The judge's reply, if there is a preference."""
    reason: str | None
    """Why the preference is missing."""
    served_model: str | None = None
    """Name of the model that answered, in the server's words; None if there was no server."""
    system_fingerprint: str | None = None


class JudgedPair(NamedTuple):
    """One pair with its showings."""

    prompt_id: str
    showings: tuple[Showing, ...]

    @property
    def verdict(self) -> Verdict:
        """The challenger's preference, or the reason of the first showing without one."""
        preferences: list[float] = []
        for showing in self.showings:
            if showing.preference is None:
                return Verdict(self.prompt_id, None, showing.reason)
            preferences.append(showing.preference)
        return Verdict(self.prompt_id, sum(preferences) / len(preferences))


@dataclass(frozen=True)
class JudgingResult:
    """All pairs in input order, and the cost of this run of the judge."""

    pairs: tuple[JudgedPair, ...]
    min_coverage: float
    num_calls: int
    num_cached: int
    """Comparisons with a cached verdict."""
    usd: float | None
    """Cost in USD; None if the price is unknown."""
    prompt_tokens: int | None = None
    """Tokens of this run's calls; None if the server does not report them."""
    completion_tokens: int | None = None

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict per pair, including missing ones. The preference is the challenger's."""
        return tuple(pair.verdict for pair in self.pairs)

    @property
    def num_judged(self) -> int:
        """Pairs with a preference."""
        return sum(verdict.preference is not None for verdict in self.verdicts)

    @property
    def coverage(self) -> float:
        """Share of the pairs with a preference; 0 without pairs."""
        return self.num_judged / len(self.pairs) if self.pairs else 0.0

    @property
    def is_final(self) -> bool:
        """Whether the coverage is high enough to report the result."""
        return self.coverage >= self.min_coverage

    @property
    def missing(self) -> dict[str, int]:
        """Number of showings without a preference, by reason."""
        showings = (showing for pair in self.pairs for showing in pair.showings)
        return dict(Counter(str(s.reason) for s in showings if s.preference is None))

    @property
    def served(self) -> dict[str, int]:
        """What the servers said that they are, with the number of showings, most first."""
        return served_counts(
            served_name(showing.served_model, showing.system_fingerprint)
            for pair in self.pairs
            for showing in pair.showings
        )

    @property
    def judge_form(self) -> JudgeForm | None:
        """How verdicts of AlpacaEval's judge were read; None for other judges."""
        return form_of(showing.evidence for pair in self.pairs for showing in pair.showings)

    @property
    def position_consistency(self) -> float | None:
        """Share of the pairs whose two showings name the same side (a tie is a side), or None."""
        sides = [
            {_side(s.preference) for s in pair.showings if s.preference is not None}
            for pair in self.pairs
            if len(pair.showings) == 2 and pair.verdict.preference is not None
        ]
        return sum(len(named) == 1 for named in sides) / len(sides) if sides else None

    def final_verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts of a final result. If it is not final, raises BudgetError, CoverageError or
        JudgeError."""
        if self.is_final:
            return self.verdicts
        stand = (
            f"{self.num_judged} of {len(self.pairs)} pairs are judged (coverage "
            f"{self.coverage:.1%}, required {self.min_coverage:.1%}; missing: {self.missing})"
        )
        if BUDGET_SPENT in self.missing:
            raise BudgetError(
                f"{stand}; {self.num_calls} calls spent the judge's budget. Verdicts are kept: run "
                "again to continue, or raise runtime.judge_max_calls or runtime.judge_max_usd"
            )
        message = f"{stand}; {_advice(self.missing)}"
        raise CoverageError(message) if self._is_lasting else JudgeError(message)

    @property
    def _is_lasting(self) -> bool:
        """Whether the coverage stays too low if a later run judges all that it can."""
        lasting = sum(
            any(s.preference is None and not _PASSING.fullmatch(str(s.reason)) for s in p.showings)
            for p in self.pairs
        )
        return len(self.pairs) - lasting < self.min_coverage * len(self.pairs)


def total_of(results: Sequence[JudgingResult], *, min_coverage: float) -> JudgingResult:
    """All pairs and the whole cost, which is unknown if one is."""
    costs = [result.usd for result in results]
    return JudgingResult(
        pairs=tuple(pair for result in results for pair in result.pairs),
        min_coverage=min_coverage,
        num_calls=sum(result.num_calls for result in results),
        num_cached=sum(result.num_cached for result in results),
        usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def left_of(budget: JudgeBudget, spent: JudgingResult) -> JudgeBudget:
    """What a result leaves of the budget."""
    max_calls, max_usd = budget.max_calls, budget.max_usd
    return JudgeBudget(
        None if max_calls is None else max(0, max_calls - spent.num_calls),
        None if max_usd is None else max(0.0, max_usd - (spent.usd or 0.0)),
    )


_PASSING = re.compile(
    r"rate_limited|timeout|no_connection|unreadable_reply|abandoned|http_(408|409|5\d\d)"
    r"|batch_(expired|cancelled|failed: (token|rate)_limit\w*)|no_reply|request_failed"
)
"""Reasons of missing verdicts that a later run may not meet."""

_LASTING: Mapping[str, str] = {
    "truncated": "raise the judge's `max_tokens`",
    "only_thought": "raise the judge's `max_tokens`, or use a model that thinks less",
    "no_answer": "give answers to all questions",
    "no_verdict": "use another `model` or wording, whose replies have a verdict",
}
"""Reason → what to change."""


def _advice(missing: Mapping[str, int]) -> str:
    """What to do about missing verdicts. Whatever would fail again is not to be run again as is."""
    lasting = [reason for reason in missing if not _PASSING.fullmatch(reason)]
    if not lasting:
        return "run again to judge the missing pairs"
    changes = [_LASTING[reason] for reason in lasting if reason in _LASTING]
    if any(reason.startswith(("http_", "batch_failed")) for reason in lasting):
        changes.append("read in the log why the server refuses them")
    again = "" if len(lasting) == len(missing) else "a second run judges only the other ones; "
    return (
        f"{again}{' and '.join(lasting)} will be missing again: "
        f"{'; '.join(changes) or 'look at these comparisons'}; or accept a lower coverage"
    )


def served_name(model: str | None, fingerprint: str | None) -> str | None:
    """The model and its fingerprint as one text: gpt-4.1-2025-04-14 (fp_abc)."""
    if fingerprint is None:
        return model
    return f"{model or 'unnamed'} ({fingerprint})"


def served_counts(names: Iterable[str | None]) -> dict[str, int]:
    """How often each name occurs, most first."""
    counts = Counter(name for name in names if name is not None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


_MOST_NAMES = 10
"""Names in a text; a server with many replicas may have a fingerprint for each."""


def served_text(counts: Mapping[str, int]) -> str | None:
    """The names with their counts as one text; None without any."""
    shown = [f"{name}: {count}" for name, count in list(counts.items())[:_MOST_NAMES]]
    rest = list(counts.values())[_MOST_NAMES:]
    if rest:
        shown.append(f"{len(rest)} others: {sum(rest)}")
    return "; ".join(shown) or None


def _side(preference: float) -> int:
    """1 for the challenger, −1 for the opponent, 0 for a tie."""
    return (preference > 0.5) - (preference < 0.5)
