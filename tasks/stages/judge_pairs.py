"""Judge pairs of answers: every pair is judged, paid for once, and counted.

A judge may favour the answer that it sees first (or second). If each pair is judged in both orders,
this position bias cancels in the mean and shows as inconsistency. If the order is drawn at random,
it cancels over many prompts at half the cost.

A verdict may be missing (a failed call, an unreadable verdict, a spent budget) with a reason. The
next run asks for it again and has all other verdicts from the cache.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple, TypeVar

from pvar.errors import JudgeError
from pvar.evaluation.alpaca_eval_judge import form_of, is_swapped
from pvar.judging import (
    Answer,
    ConcurrentJudge,
    EstimatingJudge,
    JudgeBudget,
    MeteredJudge,
    prompt_text,
)
from pvar.judging_result import BUDGET_SPENT, JudgedPair, JudgingResult, Showing
from pvar.ports import Judge
from pvar.records import Comparison
from tasks.engine.progress_log import ProgressLog
from tasks.stages.verdict_cache import VerdictCache

_log = logging.getLogger(__name__)

Orders = Literal["both", "seeded", "given"]
"""Both orders of each pair, one that is drawn, or the one in which the pair is given."""

Number = TypeVar("Number", int, float)

_BATCH = 64
"""Batch size of comparisons for a judge that does not yield answers one by one."""


class _Opinion(NamedTuple):
    """The verdict on a comparison; the preference is for its second answer."""

    preference: float | None
    evidence: str | None = None
    reason: str | None = None
    served_model: str | None = None
    system_fingerprint: str | None = None


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
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    has_warned: bool = False
    """It is in the log that verdicts are read from texts."""

    def ask(self, comparisons: Sequence[Comparison]) -> None:
        """Get a verdict on each comparison: from the cache, or from the judge within the budget."""
        self._recall(comparisons)
        unknown = [each for each in comparisons if each not in self.opinions]
        self._announce(unknown)
        for answer in self._answers(self._affordable(unknown)):
            _, preference, reason = answer.verdict
            opinion = _Opinion(
                preference,
                answer.evidence,
                reason,
                answer.served_model,
                answer.system_fingerprint,
            )
            self._learn(answer.comparison, opinion)
            if reason == BUDGET_SPENT:  # a judge that takes all comparisons first gives some back
                self.num_calls -= 1
            self._pay(answer.usd)
            self.prompt_tokens = _plus(self.prompt_tokens, answer.prompt_tokens)
            self.completion_tokens = _plus(self.completion_tokens, answer.completion_tokens)
            self.progress.advance()

    def _recall(self, comparisons: Sequence[Comparison]) -> None:
        found = self.cache.find_all(self.judge.identity, comparisons) if self.cache else {}
        for comparison, kept in found.items():
            opinion = _Opinion(
                kept.preference,
                kept.evidence,
                served_model=kept.served_model,
                system_fingerprint=kept.system_fingerprint,
            )
            self._learn(comparison, opinion)
        self.num_cached = len(found)
        self.progress.skip(len(found))

    def _learn(self, comparison: Comparison, opinion: _Opinion) -> None:
        self.opinions[comparison] = opinion
        if not self.has_warned and form_of([opinion.evidence]) == "text":
            self.has_warned = True
            _log.warning(
                "the judge gives no log-probabilities of m and M, so its text decides: preferences "
                "are 0 or 1, and nothing between. The result's judge_form says so: text, or mixed "
                "if other verdicts have log-probabilities"
            )

    def _announce(self, comparisons: Sequence[Comparison]) -> None:
        """Log what the judge is going to be asked, and the cost as far as it can be foreseen."""
        to_ask = comparisons[: self.budget.max_calls]
        if not (to_ask and isinstance(self.judge, EstimatingJudge)):
            return
        tokens, usd, most_usd = self.judge.estimate(to_ask)
        price = (
            "price unknown (runtime.judge_prices)"
            if usd is None or most_usd is None
            else f"about {usd:.2f} USD for the prompts, {most_usd:.2f} USD with the longest replies"
        )
        _log.info(
            "judging: %d calls to send, %d verdicts from the cache; about %d prompt tokens, %s",
            len(to_ask),
            self.num_cached,
            tokens,
            price,
        )

    def _affordable(self, comparisons: Sequence[Comparison]) -> Iterator[Comparison]:
        """Yield the comparisons to judge; the judge takes the next one when it is free."""
        for comparison in comparisons:
            if self._is_spent():
                self.opinions[comparison] = _Opinion(None, reason=BUDGET_SPENT)
                self.progress.skip()
            else:
                self.num_calls += 1
                yield comparison

    def _answers(self, comparisons: Iterator[Comparison]) -> Iterator[Answer]:
        """The judge's answers, which are stored: one by one, or in batches that cost nothing."""
        if isinstance(self.judge, ConcurrentJudge):
            is_proven = self.num_cached > 0
            yield from self.judge.judge_and_keep(comparisons, self._keep, is_proven=is_proven)
            return
        answers = (
            self.judge.judge_each(comparisons)
            if isinstance(self.judge, MeteredJudge)
            else _in_batches(self.judge, comparisons)
        )
        for answer in answers:
            self._keep(answer)
            yield answer

    def _keep(self, answer: Answer) -> None:
        if self.cache and answer.verdict.preference is not None:
            self.cache.keep(
                self.judge.identity,
                answer.comparison,
                answer.verdict.preference,
                answer.evidence,
                answer.served_model,
                answer.system_fingerprint,
            )

    def _pay(self, usd: float | None) -> None:
        if usd is None and self.budget.max_usd is not None:
            raise JudgeError(
                f"runtime.judge_max_usd is {self.budget.max_usd}, but the cost of a call is not "
                "known: prices are missing, or the server reports no token counts; add the judge's "
                "model to runtime.judge_prices, or use runtime.judge_max_calls instead"
            )
        self.usd = _plus(self.usd, usd)

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
    shown = as_shown(comparisons, orders=orders, seed=seed)
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
        prompt_tokens=session.prompt_tokens,
        completion_tokens=session.completion_tokens,
    )
    _report(result, time.monotonic() - began)
    return result


def as_shown(
    comparisons: Sequence[Comparison], *, orders: Orders, seed: int = 0
) -> list[Comparison]:
    """What the judge is asked about these pairs, without repetitions.

    Both orders of a pair are neighbours: a budget that ends early leaves whole pairs.
    """
    return list(
        dict.fromkeys(
            in_order(comparison, is_swapped=swap)
            for comparison in comparisons
            for swap in _swaps(comparison, orders, seed)
        )
    )


def _in_batches(judge: Judge, comparisons: Iterator[Comparison]) -> Iterator[Answer]:
    while batch := list(islice(comparisons, _BATCH)):
        for comparison, verdict in zip(batch, judge.judge(batch), strict=True):
            yield Answer(
                comparison,
                verdict,
                evidence=None,
                usd=0.0,
                prompt_tokens=0,
                completion_tokens=0,
            )


def _plus(total: Number | None, amount: Number | None) -> Number | None:
    """The sum; None, which is unknown, if one is."""
    return None if total is None or amount is None else total + amount


def _swaps(comparison: Comparison, orders: Orders, seed: int) -> tuple[bool, ...]:
    """For each showing of a pair, whether the challenger's answer is shown first."""
    match orders:
        case "both":
            return False, True
        case "given":
            return (False,)
        case "seeded":
            return (is_swapped(prompt_text(comparison.messages), seed=seed),)


def in_order(comparison: Comparison, *, is_swapped: bool) -> Comparison:
    """The comparison as the judge sees it: swapped, the challenger's answer is first."""
    if not is_swapped:
        return comparison
    return comparison._replace(first=comparison.second, second=comparison.first)


def _showing(comparison: Comparison, swap: bool, opinions: dict[Comparison, _Opinion]) -> Showing:
    """The result of one showing, with the preference of the challenger."""
    opinion = opinions[in_order(comparison, is_swapped=swap)]
    preference = opinion.preference
    if preference is not None and swap:
        preference = 1 - preference
    return Showing(swap, *opinion._replace(preference=preference))


def _report(result: JudgingResult, seconds: float) -> None:
    _log.info(
        "judged %d of %d pairs in %.1f s: %d calls, %d verdicts from the cache, %s, %s, missing %s",
        result.num_judged,
        len(result.pairs),
        seconds,
        result.num_calls,
        result.num_cached,
        _tokens(result),
        "price unknown" if result.usd is None else f"{result.usd:.4f} USD",
        result.missing or "none",
    )


def _tokens(result: JudgingResult) -> str:
    prompt, completion = (
        "unknown" if count is None else str(count)
        for count in (result.prompt_tokens, result.completion_tokens)
    )
    return f"{prompt} prompt and {completion} completion tokens"
