"""Judge pairs of answers: every pair is judged, paid for once, and counted.

A judge may favour the answer that it sees first (or second). If each pair is judged in both orders,
this position bias cancels in the mean and shows as inconsistency. If the order is drawn at random,
it cancels over many prompts at half the cost.

A verdict may be missing (a failed call, an unreadable verdict, a spent budget) with a reason. The
next run asks for it again and has all other verdicts from the cache.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

from pvar.errors import JudgeError
from pvar.evaluation.alpaca_eval_judge import is_swapped
from pvar.judging import Answer, JudgeBudget, MeteredJudge, prompt_text
from pvar.judging_result import BUDGET_SPENT, JudgedPair, JudgingResult, Showing
from pvar.ports import Judge
from pvar.records import Comparison
from tasks.engine.progress_log import ProgressLog
from tasks.stages.verdict_cache import VerdictCache

_log = logging.getLogger(__name__)

Orders = Literal["both", "seeded"]

_BATCH = 64
"""Batch size of comparisons for a judge that does not yield answers one by one."""


class _Opinion(NamedTuple):
    """The verdict on a comparison; the preference is for its second answer."""

    preference: float | None
    evidence: str | None = None
    reason: str | None = None


@dataclass
class _Session:
    """One run of a judge: its verdicts so far, and its cost."""

    judge: Judge
    cache: VerdictCache | None
    budget: JudgeBudget
    progress: ProgressLog
    opinions: dict[Comparison, _Opinion] = field(default_factory=dict)
    num_calls: int = 0
    num_cached: int = 0
    usd: float | None = 0.0

    def ask(self, comparisons: Iterable[Comparison]) -> None:
        """Get a verdict on each comparison: from the cache, or from the judge within the budget."""
        for answer in _answers(self.judge, self._unknown(comparisons)):
            self._learn(answer)
            self._pay(answer.usd)
            self.progress.advance()

    def _unknown(self, comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
        """Yield the comparisons to judge; the judge takes the next one when it is free."""
        for comparison in comparisons:
            kept = self.cache.find(self.judge.identity, comparison) if self.cache else None
            if kept is not None:
                self.opinions[comparison] = _Opinion(kept.preference, kept.evidence)
                self.num_cached += 1
                self.progress.skip()
            elif self._is_spent():
                self.opinions[comparison] = _Opinion(None, reason=BUDGET_SPENT)
                self.progress.skip()
            else:
                self.num_calls += 1
                yield comparison

    def _learn(self, answer: Answer) -> None:
        _, preference, reason = answer.verdict
        self.opinions[answer.comparison] = _Opinion(preference, answer.evidence, reason)
        if self.cache and preference is not None:
            self.cache.keep(self.judge.identity, answer.comparison, preference, answer.evidence)

    def _pay(self, usd: float | None) -> None:
        if usd is None and self.budget.max_usd is not None:
            raise JudgeError(
                f"runtime.judge_max_usd is {self.budget.max_usd}, but the cost of a call is not "
                "known: prices are missing, or the server reports no token counts; set both "
                "runtime.judge_usd_per_million_* prices, or use runtime.judge_max_calls instead"
            )
        self.usd = None if usd is None or self.usd is None else self.usd + usd

    def _is_spent(self) -> bool:
        max_calls, max_usd = self.budget.max_calls, self.budget.max_usd
        if max_calls is not None and self.num_calls >= max_calls:
            return True
        return max_usd is not None and self.usd is not None and self.usd >= max_usd


def judge_pairs(
    judge: Judge,
    comparisons: Sequence[Comparison],
    *,
    cache: VerdictCache | None,
    budget: JudgeBudget,
    min_coverage: float,
    orders: Orders = "both",
    seed: int = 0,
    progress: ProgressLog | None = None,
) -> JudgingResult:
    """Judge pairs. Each comparison has the opponent's answer first, the challenger's second.

    Verdicts are stored as they arrive, and equal comparisons are judged once. If `orders` is
    "seeded", the order is drawn at random by the prompt and `seed` (0 gives AlpacaEval's order). A
    spent budget raises no error here: the result is partial, and its `final_verdicts` raises if
    the coverage is too low. Raises JudgeError if the judge cannot be used; earlier verdicts are
    stored.
    """
    began = time.monotonic()
    swaps = [_swaps(comparison, orders, seed) for comparison in comparisons]
    progress = progress or ProgressLog("judging")
    session = _Session(judge, cache, budget, progress)
    # Both orders of a pair are neighbours: a budget that ends early leaves whole pairs.
    shown = dict.fromkeys(
        _shown(c, swap) for c, each in zip(comparisons, swaps, strict=True) for swap in each
    )
    progress.begin(total=len(shown), unit="verdicts")
    session.ask(shown)
    result = JudgingResult(
        pairs=tuple(
            JudgedPair(c.prompt_id, tuple(_showing(c, swap, session.opinions) for swap in each))
            for c, each in zip(comparisons, swaps, strict=True)
        ),
        min_coverage=min_coverage,
        num_calls=session.num_calls,
        num_cached=session.num_cached,
        usd=session.usd,
    )
    _report(result, time.monotonic() - began)
    return result


def _answers(judge: Judge, comparisons: Iterator[Comparison]) -> Iterator[Answer]:
    """The judge's answers, one by one if it supports that, else in batches that cost nothing."""
    if isinstance(judge, MeteredJudge):
        yield from judge.judge_each(comparisons)
        return
    while batch := list(islice(comparisons, _BATCH)):
        for comparison, verdict in zip(batch, judge.judge(batch), strict=True):
            yield Answer(comparison, verdict, evidence=None, usd=0.0)


def _swaps(comparison: Comparison, orders: Orders, seed: int) -> tuple[bool, ...]:
    """For each showing of a pair, whether the challenger's answer is shown first."""
    match orders:
        case "both":
            return False, True
        case "seeded":
            return (is_swapped(prompt_text(comparison.messages), seed=seed),)


def _shown(comparison: Comparison, swap: bool) -> Comparison:
    if not swap:
        return comparison
    return comparison._replace(first=comparison.second, second=comparison.first)


def _showing(comparison: Comparison, swap: bool, opinions: dict[Comparison, _Opinion]) -> Showing:
    """The result of one showing, with the preference of the challenger."""
    preference, evidence, reason = opinions[_shown(comparison, swap)]
    if preference is not None and swap:
        preference = 1 - preference
    return Showing(swap, preference, evidence, reason)


def _report(result: JudgingResult, seconds: float) -> None:
    _log.info(
        "judged %d of %d pairs in %.1f s: %d calls, %d verdicts from the cache, %s, missing %s",
        result.num_judged,
        len(result.pairs),
        seconds,
        result.num_calls,
        result.num_cached,
        "price unknown" if result.usd is None else f"{result.usd:.4f} USD",
        result.missing or "none",
    )
