"""Judge-independent types: the result of a comparison and the budget of a run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from pvar.records import Comparison, Message, Verdict

Identity = Mapping[str, str | int | float | bool | None]
"""The settings of a judge that determine its verdicts: the key of the verdict cache."""


@dataclass(frozen=True)
class JudgeBudget:
    """Limits of one run; None is no limit. Cached verdicts are free."""

    max_calls: int | None = None
    """Maximum number of comparisons. Retries and a continuation belong to the same call."""
    max_usd: float | None = None
    """No call starts once this is spent. Calls in flight are finished and paid."""


class Answer(NamedTuple):
    """A judge's verdict on one comparison, and its cost."""

    comparison: Comparison
    verdict: Verdict
    evidence: str | None
    """The judge's reply from which the verdict was parsed (Arena-Hard: the whole text)."""
    usd: float | None
    """Cost in USD; None if the price is unknown."""


@runtime_checkable
class MeteredJudge(Protocol):
    """A `Judge` whose calls are slow and cost money, so that it yields answers one by one."""

    def judge_each(self, comparisons: Iterable[Comparison]) -> Iterator[Answer]:
        """Yield answers in the order of completion.

        A comparison is taken from the iterable only when a call can start. So the caller can stop
        by ending the iterable, and has stored every answer except those in flight.
        """
        ...


def prompt_text(messages: Sequence[Message]) -> str:
    """The prompt for a judge: a single user message as it is, otherwise with role names."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in messages)
