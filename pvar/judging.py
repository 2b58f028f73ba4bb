"""Judging apart from any judge: what an answer of one holds, what it may cost, what is circular.

A judge that is also the reward model by which the training data was selected measures how well the
policy was fitted to that model: it is refused unless the user allows it, and then the report says
so.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from pvar.errors import ConfigError
from pvar.records import Comparison, Message, Verdict
from pvar.references import Pinned, is_pinned

Identity = Mapping[str, str | int | float | bool | None]
"""What of a judge or reward model decides its results; `model` is a pinned reference."""


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


def refuse_circular_judge(
    judge: Identity, reward_models: Sequence[Identity], *, allowed: bool
) -> str | None:
    """Refuse a judge that is a reward model of the selection; None where it is none.

    The same are: a model of the same digest or name, and without a model the same kind. A judge
    that wraps a reward model names that one's kind as `reward_model`. Raises ConfigError, or with
    `allowed` returns the sentence for the report.
    """
    shared = sorted(name for model in reward_models for name in _names(judge) & _names(model))
    if not shared:
        return None
    if not allowed:
        raise ConfigError(
            f"the judge is also a reward model of the selection ({shared[0]}): its verdict would "
            "be circular; choose another judge, or allow this one by name"
        )
    return (
        f"The judge ({shared[0]}) is also a reward model of the selection. This was allowed by "
        "name, but it is circular: the win rate says how well the policy was fitted to that model, "
        "not that people would prefer its answers."
    )


def _names(identity: Identity) -> frozenset[str]:
    """Names of the model that decides: a pinned reference has its name and its digest."""
    model = identity.get("model")
    if isinstance(model, str):
        return frozenset(Pinned.parse(model)) if is_pinned(model) else frozenset({model})
    return frozenset({str(identity.get("reward_model", identity["kind"]))})
