"""Judge-independent types: the result of a comparison and the budget of a run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    served_model: str | None = None
    """Name of the model that answered, in the server's words."""
    system_fingerprint: str | None = None
    """Version of the model and its server, in the server's words."""
    prompt_tokens: int | None = None
    """None if the server does not report it."""
    completion_tokens: int | None = None


class Estimate(NamedTuple):
    """What judging will cost, roughly."""

    prompt_tokens: int
    """A token is taken for `CHARACTERS_PER_TOKEN` characters."""
    usd_of_prompts: float | None
    """None if the price is unknown."""
    most_usd: float | None
    """With completions of the greatest length."""


CHARACTERS_PER_TOKEN = 4
"""Of English text."""


@runtime_checkable
class MeteredJudge(Protocol):
    """A `Judge` whose calls are slow and cost money, so that it yields answers one by one."""

    def judge_each(self, comparisons: Iterable[Comparison]) -> Iterator[Answer]:
        """Yield answers in the order of completion.

        A comparison is taken from the iterable only when a call can start. So the caller can stop
        by ending the iterable, and has stored every answer except those in flight.
        """
        ...


@runtime_checkable
class ConcurrentJudge(MeteredJudge, Protocol):
    """A `MeteredJudge` that waits for several verdicts at once, and stores each in its own time."""

    def judge_and_keep(
        self,
        comparisons: Iterable[Comparison],
        keep: Callable[[Answer], None],
        *,
        is_proven: bool = False,
    ) -> Iterator[Answer]:
        """As `judge_each`, but `keep` is called with each answer before it is yielded.

        It is called by the thread that waited for the answer, so that a slow store does not delay
        the other calls. `is_proven` says that this judge has given verdicts before, so that an
        answer without a verdict is about its comparison rather than about the judge.
        """
        ...


@runtime_checkable
class EstimatingJudge(Protocol):
    """A judge that knows roughly what its verdicts will cost."""

    def estimate(self, comparisons: Sequence[Comparison]) -> Estimate:
        """The cost of a verdict on each comparison."""
        ...


def prompt_text(messages: Sequence[Message]) -> str:
    """The prompt for a judge: a single user message as it is, otherwise with role names."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in messages)
