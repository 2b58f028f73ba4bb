"""What judging a set of pairs gave: preferences, coverage, and how far the order decided.

    preference   the challenger's, mean over the pair's showings; none unless all have a verdict
    coverage     pairs with a preference / pairs wanted; below the required one nothing is final
    consistency  share of the pairs shown in both orders in which both name the same side

A showing is one pair put to the judge in one order. With one showing of two missing the pair has no
preference: the mean of what is left would bring the position bias back.
"""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from pvar.errors import BudgetError, JudgeError
from pvar.records import Verdict

BUDGET_SPENT = "budget_spent"
"""Reason of a showing that was not put to the judge."""


class Showing(NamedTuple):
    """One pair in one order."""

    is_swapped: bool
    """The challenger's answer was shown first."""
    preference: float | None
    """Probability in [0, 1] that the challenger's answer is better."""
    evidence: str | None
    """What the judge wrote, where there is a preference."""
    reason: str | None
    """Why there is none."""


class JudgedPair(NamedTuple):
    """What was said of one pair."""

    prompt_id: str
    showings: tuple[Showing, ...]

    @property
    def verdict(self) -> Verdict:
        """The challenger's preference, or the reason of the first showing that has none."""
        preferences: list[float] = []
        for showing in self.showings:
            if showing.preference is None:
                return Verdict(self.prompt_id, None, showing.reason)
            preferences.append(showing.preference)
        return Verdict(self.prompt_id, sum(preferences) / len(preferences))


@dataclass(frozen=True)
class JudgingResult:
    """All pairs in the order in which they came, and what this run of the judge cost."""

    pairs: tuple[JudgedPair, ...]
    min_coverage: float
    num_calls: int
    num_cached: int
    """Comparisons whose verdict was there already."""
    usd: float | None
    """None where the judge does not know its price."""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One per pair, missing ones included; the preference is the challenger's."""
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
        """Whether enough was judged to be reported."""
        return self.coverage >= self.min_coverage

    @property
    def missing(self) -> dict[str, int]:
        """Number of showings without a preference, by reason."""
        showings = (showing for pair in self.pairs for showing in pair.showings)
        return dict(Counter(str(s.reason) for s in showings if s.preference is None))

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
        """The verdicts of a final result. Raises BudgetError or JudgeError for one that is not."""
        if self.is_final:
            return self.verdicts
        stand = (
            f"{self.num_judged} of {len(self.pairs)} pairs are judged (coverage "
            f"{self.coverage:.1%}, required {self.min_coverage:.1%}; missing: {self.missing})"
        )
        if BUDGET_SPENT in self.missing:
            raise BudgetError(
                f"{stand}; {self.num_calls} calls spent the judge's budget. What is judged is "
                "kept: run again to go on from there, or raise the budget"
            )
        raise JudgeError(f"{stand}; run again to ask the judge once more for what is missing")


def _side(preference: float) -> int:
    """1 for the challenger, −1 for the opponent, 0 for a tie."""
    return (preference > 0.5) - (preference < 0.5)
