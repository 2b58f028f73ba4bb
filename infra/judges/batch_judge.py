"""A language model as judge through its server's batch API: half the price, no rate limit, slow.

The comparisons are submitted as files of requests (`runtime.judge_mode: batch`). A batch is
recorded in the store (`infra/judges/batch_records.py`), so that a run that is killed while it waits
finds it again and only collects. The identity is that of `OpenAIJudge` with the same question, so
both use the same cached verdicts.

Arena-Hard v0.1 asks a second time if the verdict is missing. These requests are another batch.

Requests are written as OpenAI and vLLM take them; what a live judge learns from refusals (an older
name of a parameter) cannot be learned here.

A failed request is a missing verdict with a reason, and so is what an expired, failed or cancelled
batch did not answer. The next run submits only these. If requests without any verdict among them
were refused for a parameter that all have, judging ends with the server's words and what to change.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from infra.judges.access import JudgeAccess, open_judge_client
from infra.judges.batch_api import BatchApi, BatchState
from infra.judges.batch_records import BatchRecords, RecordedBatch
from infra.judges.batch_requests import (
    USUAL_LIMITS,
    BatchLimits,
    BatchReply,
    BatchRequest,
    batch_request,
    next_step,
    read_reply,
    split_requests,
)
from infra.judges.calls import Completion, TransientError, Usage
from infra.judges.dead_ends import refused
from infra.judges.health import Health
from infra.judges.openai_judge import Prices, answer_of, estimate_of
from infra.judges.questions import Questions, Reading, Request
from infra.judges.refusals import Refusal
from infra.judges.retry_policy import RetryPolicy
from pvar.errors import JudgeError
from pvar.judging import Answer, Estimate
from pvar.judging_result import BUDGET_SPENT
from pvar.ports import Store
from pvar.records import Comparison, Verdict

_log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 3
"""For the estimate of a price. English has about 4, so the estimate is usually too high."""


_FREE = Usage(prompt_tokens=0, completion_tokens=0)

LONGEST_PAUSE_SECONDS = 60.0
PAUSE_GROWTH = 1.5
"""Between two looks at the batches."""


@dataclass
class _Talk:
    """What was asked and answered about one comparison."""

    comparison: Comparison
    request: Request
    """The one to be answered next."""
    custom_ids: list[str]
    """Of all its requests so far."""
    completions: list[Completion] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """All texts, which the server's words must not repeat."""
        return [
            self.comparison.first,
            self.comparison.second,
            *(message.content for message in self.comparison.messages),
            *(message.content for message in self.request.messages),
        ]


@dataclass(frozen=True)
class BatchJudge:
    """A `MeteredJudge` that takes all comparisons before it yields the first answer."""

    model: str
    questions: Questions
    access: JudgeAccess
    retry_policy: RetryPolicy
    store: Store
    """Where submitted batches are recorded."""
    prices: Prices | None = None
    """Prices of the batch API."""
    max_usd: float | None = None
    """No request is submitted whose estimated price exceeds what is left of this."""
    first_pause_seconds: float = 5.0
    """Pause before the second look at a batch. It grows to a minute."""
    limits: BatchLimits = USUAL_LIMITS

    @property
    def identity(self) -> Mapping[str, str | int | float | bool | None]:
        """The model's name, and the question."""
        return {**self.questions.identity, "model": self.model}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict per comparison, in order. Equal comparisons are judged once."""
        answers = self.judge_each(dict.fromkeys(comparisons))
        verdicts = {answer.comparison: answer.verdict for answer in answers}
        return [verdicts[comparison] for comparison in comparisons]

    def estimate(self, comparisons: Sequence[Comparison]) -> Estimate:
        """The cost, from the number of characters of the first request about each comparison."""
        return estimate_of(self.questions, self.prices, comparisons)

    def judge_each(self, comparisons: Iterable[Comparison]) -> Iterator[Answer]:
        """Answers as batches are complete. JudgeError if the server cannot be used."""
        if self.max_usd is not None and self.prices is None:
            raise JudgeError(
                f"runtime.judge_max_usd is {self.max_usd}, but the price of a batch is not known; "
                "add the judge's model to runtime.judge_prices, or use runtime.judge_max_calls"
            )
        asked = list(comparisons)
        if not asked:
            return
        with open_judge_client(
            self.access, timeout_seconds=self.retry_policy.timeout_seconds
        ) as client:
            run = _Run(self, BatchApi(client, self.retry_policy))
            try:
                yield from run.answers(asked)
                return
            except TransientError as error:
                reason = error.reason
        raise JudgeError(
            f"the judge's server does not answer ({reason}) after {self.retry_policy.max_attempts} "
            "attempts; submitted batches are recorded: run again when the server works"
        )


class _Run:
    """One use of the judge: what it waits for, and what it has spent."""

    def __init__(self, judge: BatchJudge, api: BatchApi) -> None:
        self._judge = judge
        self._api = api
        self._records = BatchRecords(judge.store, judge.identity)
        self._waiting: dict[str, list[_Talk]] = {}
        """Talks by the id of the request that is to be answered."""
        self._recorded: dict[str, RecordedBatch] = {}
        """Every batch that this run waited for, by its key."""
        self._settled: set[str] = set()
        """Requests whose verdict or failure the caller has."""
        self._spent_usd = 0.0
        self._reported: set[str] = set()
        """Reasons of failed requests that are in the log."""
        # Only for what is certain: a later run may ask for nothing but what is refused for itself.
        self._health = Health(max_in_flight=1, is_proven=True)

    def answers(self, comparisons: Sequence[Comparison]) -> Iterator[Answer]:
        """Submit, wait and collect until every comparison has its answer."""
        for comparison in comparisons:
            self._wait_for(_Talk(comparison, self._judge.questions.request(comparison), []))
        while self._waiting:
            batches = self._batches()
            recorded = {each for batch in batches for each in batch.record.custom_ids}
            new = self._affordable(recorded)
            if not batches and not new:
                yield from self._budget_is_spent()
                return
            batches += self._submit(new)
            yield from self._collect(*self._next_ended(batches))

    def _wait_for(self, talk: _Talk) -> None:
        custom_id = batch_request(self._judge.model, talk.request).custom_id
        talk.custom_ids.append(custom_id)
        self._waiting.setdefault(custom_id, []).append(talk)

    def _batches(self) -> list[RecordedBatch]:
        """The recorded batches with answers for this run, its own and a killed run's."""
        batches = []
        for batch in self._records.waiting_for(self._waiting.keys()):
            if batch.record.batch_id is None:
                batch_id = self._api.find(batch.record.submission)
                if batch_id is None:
                    self._records.drop(batch)  # the other run ended before it created the batch
                    continue
                batch = self._records.note_batch(batch, batch_id)
            if batch.key not in self._recorded:
                _log.info("%s: waiting for a batch that was submitted before", batch.key)
            self._recorded[batch.key] = batch
            batches.append(batch)
        return batches

    def _affordable(self, recorded: set[str]) -> list[str]:
        """The requests to submit, as many as the budget allows, in order."""
        new = [custom_id for custom_id in self._waiting if custom_id not in recorded]
        prices, max_usd = self._judge.prices, self._judge.max_usd
        if max_usd is None or prices is None:
            return new
        left = max_usd - self._spent_usd
        left -= sum(
            _estimate(prices, talks[0].request)
            for custom_id, talks in self._waiting.items()
            if custom_id in recorded
        )
        affordable = []
        for custom_id in new:
            left -= _estimate(prices, self._waiting[custom_id][0].request)
            if left < 0:
                break
            affordable.append(custom_id)
        return affordable

    def _budget_is_spent(self) -> Iterator[Answer]:
        for talk in (talk for talks in self._waiting.values() for talk in talks):
            yield self._missing(talk, BUDGET_SPENT)

    def _submit(self, custom_ids: Sequence[str]) -> list[RecordedBatch]:
        requests = (
            batch_request(self._judge.model, self._waiting[each][0].request) for each in custom_ids
        )
        batches = []
        for lines in split_requests(requests, self._judge.limits):
            file_id = self._api.upload(lines, partial(self._texts, lines))
            batch = self._records.claim([line.custom_id for line in lines])
            try:
                batch_id = self._api.create(file_id, batch.record.submission)
            except JudgeError:
                self._records.drop(batch)
                raise
            batch = self._records.note_batch(batch, batch_id)
            _log.info("%s: submitted a batch of %d requests", batch.key, len(lines))
            self._recorded[batch.key] = batch
            batches.append(batch)
        return batches

    def _texts(self, lines: Sequence[BatchRequest]) -> list[str]:
        """All texts of these requests."""
        talks = (talk for line in lines for talk in self._waiting[line.custom_id])
        return [text for talk in talks for text in talk.texts]

    def _next_ended(self, batches: Sequence[RecordedBatch]) -> tuple[RecordedBatch, BatchState]:
        """The first batch that ends, looked for with growing pauses."""
        seen: dict[str, str] = {}
        pause = self._judge.first_pause_seconds
        while True:
            for batch in batches:
                assert batch.record.batch_id is not None
                state = self._api.state(batch.record.batch_id, batch.key)
                if seen.get(batch.key) != (now := _progress(state)):
                    _log.info("%s: %s", batch.key, now)
                    seen[batch.key] = now
                if state.is_over:
                    return batch, state
            self._api.over.wait(pause)
            pause = max(pause, min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS))

    def _collect(self, batch: RecordedBatch, state: BatchState) -> Iterator[Answer]:
        """The answers of a batch that ended. It is settled once the caller has taken them."""
        unanswered = [each for each in batch.record.custom_ids if each in self._waiting]
        for reply in self._replies(batch, state):
            if reply.custom_id in self._waiting:
                yield from self._take(reply)
        if state.message:
            waiting = (talk for talks in self._waiting.values() for talk in talks)
            texts = [text for talk in waiting for text in talk.texts]
            words = self._api.redacted(state.message, texts)
            _log.warning("%s: the batch %s: %s", batch.key, state.status, words)
        for custom_id in unanswered:
            if custom_id in self._waiting:
                yield from self._take(BatchReply(custom_id, None, state.reason))
        for key, recorded in self._recorded.items():
            self._recorded[key] = self._records.settle(recorded, self._settled)
        if self._health.is_hopeless:
            raise JudgeError(
                f"{self._health.dead_ends[0].explanation}, or set runtime.judge_mode=live, which "
                "can ask without it (the first requests were refused for it, and none had a "
                "verdict)"
            )

    def _replies(self, batch: RecordedBatch, state: BatchState) -> Iterator[BatchReply]:
        expected = set(batch.record.custom_ids)
        for file_id in (state.output_file_id, state.error_file_id):
            for line in self._api.lines(file_id, batch.key) if file_id else ():
                reply = read_reply(line)
                if reply is None:
                    _log.warning("%s: a line of its output is damaged", batch.key)
                elif reply.custom_id in expected:
                    yield reply

    def _take(self, reply: BatchReply) -> Iterator[Answer]:
        """The verdicts that follow from a reply; without one yet, its talks wait for another."""
        completion = reply.completion
        self._spent_usd += self._price(completion) if completion else 0.0
        for talk in self._waiting.pop(reply.custom_id):
            if completion is None:
                self._report(reply, talk)
                self._note_refusal(reply, talk)
                yield self._missing(talk, reply.reason)
            else:
                talk.completions.append(completion)
                completion = completion._replace(usage=_FREE)  # equal requests are paid once
                replies = [each.reply for each in talk.completions]
                step = next_step(self._judge.questions, talk.comparison, replies)
                if isinstance(step, Request):
                    talk.request = step
                    self._wait_for(talk)
                    continue
                if step.preference is not None:
                    self._health.note_verdict()
                yield answer_of(talk.comparison, step, talk.completions, self._judge.prices)
            self._settled.update(talk.custom_ids)

    def _missing(self, talk: _Talk, reason: str | None) -> Answer:
        reading = Reading(None, None, reason)
        return answer_of(talk.comparison, reading, talk.completions, self._judge.prices)

    def _price(self, completion: Completion) -> float:
        """In USD; 0 where it is unknown, which `judge_pairs` refuses if there is a budget."""
        prices, usage = self._judge.prices, completion.usage or Usage()
        if prices is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return 0.0
        return prices.usd(usage.prompt_tokens, usage.completion_tokens)

    def _note_refusal(self, reply: BatchReply, talk: _Talk) -> None:
        """Count what every request is refused for; the words of the first ones are enough."""
        if reply.refused is None or reply.refused.parameter is None or self._health.is_hopeless:
            return
        status, parameter, of_one_call = reply.refused
        words = self._api.redacted(reply.message, talk.texts)
        refusal = Refusal(status, words, parameter, of_one_call)
        if dead_end := refused(refusal, self._judge.identity):
            self._health.note_dead_end(dead_end)

    def _report(self, reply: BatchReply, talk: _Talk) -> None:
        """Log the server's words about failed requests, once for each reason."""
        reason = str(reply.reason)
        if reason in self._reported:
            return
        self._reported.add(reason)
        words = self._api.redacted(reply.message, talk.texts)
        _log.warning("a request of a batch failed (%s): %s", reason, words or "no reason given")


def _estimate(prices: Prices, request: Request) -> float:
    """Price of a request whose reply is as long as it may be, in USD."""
    num_bytes = sum(len(message.content.encode()) for message in request.messages)
    return prices.usd(math.ceil(num_bytes / BYTES_PER_TOKEN), request.max_tokens)


def _progress(state: BatchState) -> str:
    counts = state.request_counts
    if counts is None or not counts.total:
        return state.status
    return (
        f"{state.status}, {counts.completed} of {counts.total} requests answered, "
        f"{counts.failed} failed"
    )
