"""A language model behind an OpenAI-compatible server as judge (OpenAI's own, `vllm serve`, …).

Calls run concurrently, up to a limit. A call that fails after all retries is a missing verdict with
a reason. If many calls in a row fail, the server is presumed down and judging stops. A model is
identified by its name on the server: another model with the same name would get the old one's
cached verdicts, so serve it under another name.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from infra.judges.access import JudgeAccess, open_judge_client
from infra.judges.calls import CallError, TransientError, Usage, complete
from infra.judges.in_flight import results_in_flight
from infra.judges.questions import Questions, Reading, Reply, Request
from infra.judges.retry_policy import RetryPolicy, with_retries
from pvar.errors import JudgeError
from pvar.judging import Answer
from pvar.records import Comparison, Verdict

if TYPE_CHECKING:
    from openai import OpenAI

OUTAGE_ROUNDS = 3
"""An outage is this many times `max_in_flight` calls that fail in a row, after all retries."""


class Prices(NamedTuple):
    """Prices of the server."""

    usd_per_million_prompt_tokens: float
    usd_per_million_completion_tokens: float

    def usd(self, usage: Usage) -> float:
        """Price of one reply."""
        return (
            usage.prompt_tokens * self.usd_per_million_prompt_tokens
            + usage.completion_tokens * self.usd_per_million_completion_tokens
        ) / 1e6


class _Call(NamedTuple):
    answer: Answer
    outage_reason: str | None
    """Set if the server failed, rather than the comparison."""


@dataclass
class _Health:
    """Whether to send more calls: not after too many failures in a row."""

    num_tolerated: int
    failures: list[str] = field(default_factory=list)

    @property
    def is_down(self) -> bool:
        return len(self.failures) >= self.num_tolerated

    def note(self, failure: str | None) -> None:
        if failure is not None:
            self.failures.append(failure)
        elif not self.is_down:
            self.failures.clear()

    def while_well(self, comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
        for comparison in comparisons:
            if self.is_down:
                return
            yield comparison


@dataclass(frozen=True)
class OpenAIJudge:
    """A `MeteredJudge`. Its identity and representation contain no address and no key."""

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
        over = threading.Event()
        health = _Health(num_tolerated=OUTAGE_ROUNDS * self.max_in_flight)
        with open_judge_client(
            self.access, timeout_seconds=self.retry_policy.timeout_seconds
        ) as client:
            for call in results_in_flight(
                partial(self._call, client, over),
                health.while_well(comparisons),
                limit=self.max_in_flight,
                over=over,
            ):
                health.note(call.outage_reason)
                yield call.answer
        if health.is_down:
            raise JudgeError(
                f"the last {len(health.failures)} calls to the judge's server all failed "
                f"({dict(Counter(health.failures))}), each after {self.retry_policy.max_attempts} "
                "attempts; earlier verdicts are kept: run again when the server works"
            )

    def _call(self, client: "OpenAI", over: threading.Event, comparison: Comparison) -> _Call:
        """Judge one comparison, with retries."""
        usages: list[Usage | None] = []

        def ask(request: Request) -> Reply:
            completion = with_retries(
                lambda: complete(client, self.model, request), self.retry_policy, over
            )
            usages.append(completion.usage)
            return completion.reply

        try:
            reading = self.questions.put(comparison, ask)
        except CallError as error:
            verdict = Verdict(comparison.prompt_id, None, error.reason)
            outage_reason = error.reason if isinstance(error, TransientError) else None
            return _Call(Answer(comparison, verdict, None, self._usd(usages)), outage_reason)
        return _Call(_answer(comparison, reading, self._usd(usages)), None)

    def _usd(self, usages: Sequence[Usage | None]) -> float | None:
        if self.prices is None or None in usages:
            return None
        return sum(self.prices.usd(usage) for usage in usages if usage is not None)


def _answer(comparison: Comparison, reading: Reading, usd: float | None) -> Answer:
    verdict = Verdict(comparison.prompt_id, reading.preference, reading.reason)
    return Answer(comparison, verdict, reading.evidence, usd)
