"""A language model behind an OpenAI-compatible server as judge (OpenAI's own, `vllm serve`, …).

Calls run concurrently, up to a limit. A call that fails after all retries is a missing verdict with
a reason. If many calls in a row fail, or the first ones all end alike without a verdict, judging
stops (`infra/judges/health.py`). A model is identified by its name on the server: another model
with the same name would get the old one's cached verdicts, so serve it under another name. What the
server says that it is, is recorded with each verdict.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from infra.judges.access import JudgeAccess, open_judge_client
from infra.judges.calls import (
    NEWEST,
    CallError,
    Completion,
    Dialect,
    RefusalError,
    TransientError,
    Usage,
    complete,
)
from infra.judges.dead_ends import refused, unread
from infra.judges.health import DeadEnd, Health, results_while_well
from infra.judges.questions import Questions, Reading, Reply, Request
from infra.judges.refusals import Refusal
from infra.judges.retry_policy import RetryPolicy, with_retries
from pvar.judging import CHARACTERS_PER_TOKEN, Answer, Estimate
from pvar.records import Comparison, Verdict

if TYPE_CHECKING:
    from openai import OpenAI

_log = logging.getLogger(__name__)


class Prices(NamedTuple):
    """Prices of the server."""

    usd_per_million_prompt_tokens: float
    usd_per_million_completion_tokens: float

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of that many tokens."""
        return (
            prompt_tokens * self.usd_per_million_prompt_tokens
            + completion_tokens * self.usd_per_million_completion_tokens
        ) / 1e6


class _Call(NamedTuple):
    answer: Answer
    outage_reason: str | None = None
    """Set if the server failed, rather than the comparison."""
    dead_end: DeadEnd | None = None
    """Set if later calls may end in the same way."""


@dataclass
class _Server:
    """The server as it is known in one run, by all its calls."""

    client: "OpenAI"
    dialect: Dialect = NEWEST
    reported: set[str] = field(default_factory=set)
    """Refusals that are in the log."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def learn(self, sent: Dialect, refusal: Refusal) -> bool:
        """Whether to ask again in another way, now that the server refused `sent`."""
        with self.lock:
            if sent.after(refusal) == sent:
                return False
            if self.dialect == sent:
                self.dialect = sent.after(refusal)
                _log.info(
                    "the judge's server refuses %s (%d: %s); asking without it from now on",
                    refusal.parameter,
                    refusal.status,
                    refusal.words,
                )
            return self.dialect != sent

    def report(self, refusal: Refusal) -> None:
        """Log a refusal, once for all of its kind."""
        with self.lock:
            is_new = refusal.kind not in self.reported
            self.reported.add(refusal.kind)
        if is_new:
            _log.warning(
                "the judge's server refuses a comparison (%d): %s; its verdict is missing",
                refusal.status,
                refusal.words,
            )


@dataclass(frozen=True)
class OpenAIJudge:
    """A `ConcurrentJudge`. Its identity and representation contain no address and no key."""

    model: str
    questions: Questions
    access: JudgeAccess
    max_in_flight: int
    """Maximum concurrent calls (≥ 1)."""
    retry_policy: RetryPolicy
    prices: Prices | None = None

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """The model's name, and the question."""
        return {**self.questions.identity, "model": self.model}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict per comparison, in order. Equal comparisons are judged once."""
        answers = self.judge_each(dict.fromkeys(comparisons))
        verdicts = {answer.comparison: answer.verdict for answer in answers}
        return [verdicts[comparison] for comparison in comparisons]

    def judge_each(self, comparisons: Iterable[Comparison]) -> Iterator[Answer]:
        """Answers in the order of completion. JudgeError if the server cannot be used."""
        return self.judge_and_keep(comparisons, lambda _: None)

    def judge_and_keep(
        self,
        comparisons: Iterable[Comparison],
        keep: Callable[[Answer], None],
        *,
        is_proven: bool = False,
    ) -> Iterator[Answer]:
        """As `judge_each`; `keep` is called with each answer in the thread of its call."""
        health = Health(self.max_in_flight, is_proven)
        with open_judge_client(
            self.access, timeout_seconds=self.retry_policy.timeout_seconds
        ) as client:
            ask = partial(self._call, _Server(client), keep)
            for call in results_while_well(ask, comparisons, health):
                _note(health, call)
                yield call.answer
            health.raise_if_over(self.retry_policy.max_attempts)

    def estimate(self, comparisons: Sequence[Comparison]) -> Estimate:
        """The cost, from the number of characters of the first request about each comparison."""
        return estimate_of(self.questions, self.prices, comparisons)

    def _call(
        self,
        server: _Server,
        keep: Callable[[Answer], None],
        over: threading.Event,
        comparison: Comparison,
    ) -> _Call:
        call = self._judged(server, over, comparison)
        keep(call.answer)
        return call

    def _judged(self, server: _Server, over: threading.Event, comparison: Comparison) -> _Call:
        """Judge one comparison, with retries."""
        completions: list[Completion] = []

        def ask(request: Request) -> Reply:
            completions.append(self._completion(server, over, request, comparison))
            return completions[-1].reply

        def without_verdict(error: CallError) -> Answer:
            missing = Reading(None, None, error.reason)
            return answer_of(comparison, missing, completions, self.prices)

        try:
            reading = self.questions.put(comparison, ask)
        except TransientError as error:
            return _Call(without_verdict(error), outage_reason=error.reason)
        except RefusalError as error:
            server.report(error.refusal)
            return _Call(without_verdict(error), dead_end=refused(error.refusal, self.identity))
        except CallError as error:
            return _Call(without_verdict(error))
        answer = answer_of(comparison, reading, completions, self.prices)
        return _Call(answer, dead_end=unread(reading.reason, self.identity))

    def _completion(
        self, server: _Server, over: threading.Event, request: Request, comparison: Comparison
    ) -> Completion:
        """The server's reply, to the question as the server takes it."""
        texts = (comparison.first, comparison.second, *(m.content for m in comparison.messages))
        while True:
            sent = server.dialect
            try:
                return with_retries(
                    partial(complete, server.client, self.model, request, sent, texts),
                    self.retry_policy,
                    over,
                )
            except RefusalError as error:
                if not server.learn(sent, error.refusal):
                    raise


def estimate_of(
    questions: Questions, prices: Prices | None, comparisons: Sequence[Comparison]
) -> Estimate:
    """The cost, from the number of characters of the first request about each comparison."""
    requests = [questions.request(comparison) for comparison in comparisons]
    characters = sum(len(m.content) for request in requests for m in request.messages)
    num_tokens = characters // CHARACTERS_PER_TOKEN
    if prices is None:
        return Estimate(num_tokens, None, None)
    most = sum(request.max_tokens for request in requests)
    return Estimate(num_tokens, prices.usd(num_tokens, 0), prices.usd(num_tokens, most))


def answer_of(
    comparison: Comparison,
    reading: Reading,
    completions: Sequence[Completion],
    prices: Prices | None,
) -> Answer:
    """The reading with the cost of all replies, and what the last one says of its server."""
    usages = [completion.usage or Usage() for completion in completions]
    prompt = _total(usage.prompt_tokens for usage in usages)
    completion = _total(usage.completion_tokens for usage in usages)
    last = completions[-1].reply if completions else None
    usd = None
    if prices is not None and prompt is not None and completion is not None:
        usd = prices.usd(prompt, completion)
    return Answer(
        comparison,
        Verdict(comparison.prompt_id, reading.preference, reading.reason),
        reading.evidence,
        usd,
        last and last.served_model,
        last and last.system_fingerprint,
        prompt,
        completion,
    )


def _note(health: Health, call: _Call) -> None:
    if call.outage_reason is not None:
        health.note_failure(call.outage_reason)
        return
    health.note_reply()
    if call.answer.verdict.preference is not None:
        health.note_verdict()
    elif call.dead_end is not None:
        health.note_dead_end(call.dead_end)


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum; None if a count is unknown."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)
