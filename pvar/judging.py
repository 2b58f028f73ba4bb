"""Judging apart from any judge: what an answer of one holds, and what it may cost."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from pvar.records import Comparison, Message, Verdict

Identity = Mapping[str, str | int | float | bool | None]
"""What of a judge decides its verdicts, as the cache of verdicts knows it."""


@dataclass(frozen=True)
class JudgeBudget:
    """What judging may cost; None is no limit. What was judged before (the cache) is free."""

    max_calls: int | None = None
    """Comparisons put to the judge; a call's retries and its continuation belong to it."""
    max_usd: float | None = None
    """No call begins once this is spent; those in flight are finished and paid."""


class Answer(NamedTuple):
    """What a judge said of one comparison, and what that cost."""

    comparison: Comparison
    verdict: Verdict
    evidence: str | None
    """What the verdict was read from, in the judge's own words (Arena-Hard: its whole text)."""
    usd: float | None
    """None where the price is not known."""


@runtime_checkable
class MeteredJudge(Protocol):
    """What a `Judge` can besides whose calls are slow and cost money: it answers one by one."""

    def judge_each(self, comparisons: Iterable[Comparison]) -> Iterator[Answer]:
        """Answers in the order of completion.

        A comparison is taken from the iterable only when a call can begin, so the caller decides
        by what it hands out, and has stored every answer but those in flight.
        """
        ...


def prompt_text(messages: Sequence[Message]) -> str:
    """The prompt as a judge reads it: one user message as it is, else with the roles named."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in messages)
