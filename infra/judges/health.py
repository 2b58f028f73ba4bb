"""Whether to send a judge's server more calls.

    outage     many calls in a row failed, each after all its retries: the server is presumed down
    hopeless   the first calls all ended alike without a verdict, and none had one: later ones will,
               too. What may be about one comparison (too long, moderated) does not count.

A hopeless judge is stopped after a few calls, because each further one costs time or money. Calls
in flight are waited for: if one of them has a verdict, judging goes on.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import NamedTuple, TypeVar

from infra.judges.in_flight import results_in_flight
from pvar.errors import JudgeError

Item = TypeVar("Item")
Result = TypeVar("Result")

OUTAGE_ROUNDS = 3
"""An outage is this many times `max_in_flight` calls that fail in a row, after all retries."""

FEWEST_ALIKE, MOST_ALIKE = 3, 8
"""Bounds of the number of first calls that must end alike; between them it is `max_in_flight`."""


class DeadEnd(NamedTuple):
    """Why a call has no verdict, if all later calls may end in the same way."""

    kind: str
    """Equal for calls that end for one reason."""
    explanation: str
    """What it is and what to change."""
    is_certain: bool
    """It cannot be about one comparison: the server names a parameter that all calls have."""


@dataclass
class Health:
    """How the calls so far ended."""

    max_in_flight: int
    is_proven: bool
    """The judge has given verdicts before this run."""
    failures: list[str] = field(default_factory=list)
    """Reasons of the last calls, which all failed."""
    dead_ends: list[DeadEnd] = field(default_factory=list)
    """The first calls, if all ended for one reason."""
    has_verdict: bool = False

    def note_failure(self, reason: str) -> None:
        """A call failed after all its retries."""
        self.failures.append(reason)

    def note_reply(self) -> None:
        """The server replied, with whatever."""
        if not self.is_down:
            self.failures.clear()

    def note_verdict(self) -> None:
        """A reply had a verdict."""
        self.has_verdict = True
        self.dead_ends.clear()

    def note_dead_end(self, dead_end: DeadEnd) -> None:
        """A call ended without a verdict, for a reason that others may have."""
        if self.has_verdict or (self.is_proven and not dead_end.is_certain):
            return
        if self.dead_ends and self.dead_ends[0].kind != dead_end.kind:
            self.dead_ends.clear()
        self.dead_ends.append(dead_end)

    @property
    def is_down(self) -> bool:
        """Whether this is an outage."""
        return len(self.failures) >= OUTAGE_ROUNDS * self.max_in_flight

    @property
    def is_hopeless(self) -> bool:
        """Whether all later calls are expected to end as the first ones."""
        num_alike = min(max(self.max_in_flight, FEWEST_ALIKE), MOST_ALIKE)
        return len(self.dead_ends) >= num_alike

    def while_well(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until there is an outage or no hope."""
        for item in items:
            yield item
            if self.is_over:
                return

    @property
    def is_over(self) -> bool:
        """Whether no more calls must be sent."""
        return self.is_down or self.is_hopeless

    @property
    def why_hopeless(self) -> str:
        """What all the first calls met, for an error."""
        return (
            f"{self.dead_ends[0].explanation} (the first {len(self.dead_ends)} requests all ended "
            "so; no more were sent)"
        )

    def raise_if_over(self, max_attempts: int) -> None:
        """Raise JudgeError if no more calls must be sent."""
        if self.is_hopeless:
            raise JudgeError(self.why_hopeless)
        if self.is_down:
            raise JudgeError(
                f"the last {len(self.failures)} calls to the judge's server all failed "
                f"({dict(Counter(self.failures))}), each after {max_attempts} attempts; earlier "
                "verdicts are kept: run again when the server works"
            )


def results_while_well(
    ask: Callable[[Event, Item], Result], items: Iterable[Item], health: Health
) -> Iterator[Result]:
    """Yield what `ask` returns for each item, in the order of completion, while the server is well.

    The consumer notes each result in `health` before it takes the next one. `ask` also gets an
    event: once it is set, waiting for another attempt is pointless.
    """
    waiting = iter(items)
    is_done = False
    while not is_done:  # again after a pause in which a call in flight had a verdict
        over, is_done = Event(), True
        for result in results_in_flight(
            partial(ask, over), health.while_well(waiting), limit=health.max_in_flight, over=over
        ):
            is_done = False
            yield result
        is_done = is_done or health.is_over
