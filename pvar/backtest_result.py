"""What a backtest found: the batches of each policy, totals, and sentences about them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from pvar.backtest_config import TimeSource

_Number = TypeVar("_Number", int, float)

Fate = Literal["promoted", "not promoted", "held", "set aside", "failed", "not run"]
"""What became of a batch: its model was promoted or not; it waits for a person; too many of its
runs failed; its last run failed; no retraining has run it yet."""


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SimulatedRate(_Result):
    """A paired win rate and its interval, in [0, 1]."""

    rate: float
    lower: float
    upper: float


class SimulatedBatch(_Result):
    """A batch that retraining made of historical files. Missing figures are None."""

    number: int
    made_at: AwareDatetime
    """By the simulated clock."""
    files: tuple[str, ...]
    num_rows: int
    num_labelled: int | None
    num_replayed: int
    """Rows of earlier batches that were trained on again."""
    why_made: tuple[str, ...]
    fate: Fate
    why: tuple[str, ...] = ()
    """Why its model was not promoted, or its runs failed."""
    agreement: dict[str, float] = {}
    """Share of its labels with which a model agreed before it was trained on, by the name of the
    reward model, `champion` or `judge` (`label_audit`)."""
    version: int | None = None
    look: str | None = None
    """`look 3 at this exam, level 0.0034 of 0.05`."""
    curve: tuple[str, str] | None = None
    """Digests of the exam and of its conditions. Results that have both in common are
    comparable."""
    against_champion: SimulatedRate | None = None
    against_first: SimulatedRate | None = None
    ability: float | None = None
    """Share of the ability questions that the model answered correctly."""
    ability_change_since_first: float | None = None
    benchmarks: dict[str, float] = {}
    """Scores of the model, by the benchmark's name."""
    num_tokens: int | None = None
    """Tokens that were sampled or trained on, of artifacts that no earlier batch has."""
    usd: float | None = None
    """Cost of a judge on a server, as far as prices are known."""
    seconds: float | None = None
    """Of the stages of all its runs, on this machine; a stage that was interrupted is not counted
    until it was begun again."""
    run: str | None = None


class BacktestedPolicy(_Result):
    """A policy, as far as it was replayed."""

    name: str
    settings: dict[str, JsonValue]
    folder: str
    """Its home (PVAR_HOME), with a store and an MLflow of its own."""
    asks_person: bool
    num_looks: int
    num_looks_done: int
    batches: tuple[SimulatedBatch, ...] = ()
    waiting: tuple[str, ...] = ()
    """One sentence per batch that waits at the end."""
    quarantined: tuple[str, ...] = ()
    """Files that were not accepted, with the reason."""
    unused_files: tuple[str, ...] = ()
    """Files that arrived and are in no batch."""
    error: str | None = None
    """Why the replay ended early."""

    @property
    def is_complete(self) -> bool:
        """Whether the whole history was replayed."""
        return self.num_looks_done == self.num_looks

    @property
    def promoted(self) -> tuple[SimulatedBatch, ...]:
        """The batches whose model was promoted."""
        return tuple(batch for batch in self.batches if batch.fate == "promoted")


class BacktestResult(_Result):
    """A backtest."""

    batches: str
    """Where the historical files are."""
    time_source: TimeSource
    num_files: int
    first_at: AwareDatetime
    last_at: AwareDatetime
    policies: tuple[BacktestedPolicy, ...]


class PolicyTotals(NamedTuple):
    """A policy in one line."""

    fates: dict[Fate, int]
    num_rows: int
    num_replayed: int
    final: SimulatedBatch | None
    """The batch of the last champion."""
    seconds: float | None
    num_tokens: int | None
    usd: float | None


def total_of_policy(policy: BacktestedPolicy) -> PolicyTotals:
    """The totals over the batches. A sum of which nothing is known is None."""
    fates: dict[Fate, int] = {}
    for batch in policy.batches:
        fates[batch.fate] = fates.get(batch.fate, 0) + 1
    return PolicyTotals(
        fates=fates,
        num_rows=sum(batch.num_rows for batch in policy.batches),
        num_replayed=sum(batch.num_replayed for batch in policy.batches),
        final=policy.promoted[-1] if policy.promoted else None,
        seconds=_sum([batch.seconds for batch in policy.batches]),
        num_tokens=_sum([batch.num_tokens for batch in policy.batches]),
        usd=_sum([batch.usd for batch in policy.batches]),
    )


def _sum(values: Sequence[_Number | None]) -> _Number | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def worse_promotions(policy: BacktestedPolicy) -> list[tuple[SimulatedBatch, SimulatedBatch]]:
    """The champion before and after each promotion that lowered the win rate against the first
    model: what a person might have rolled back. Only results on one exam are compared."""
    return [
        (before, after)
        for before, after in pairwise(policy.promoted)
        if before.curve is not None
        and before.curve == after.curve
        and before.against_first is not None
        and after.against_first is not None
        and after.against_first.rate < before.against_first.rate
    ]


def policy_story(policy: BacktestedPolicy) -> list[str]:
    """What would have happened under a policy, in sentences."""
    return [
        *_progress(policy),
        *_promotions(policy),
        *_holds(policy),
        *_files(policy),
        *_comparability(policy),
    ]


def _progress(policy: BacktestedPolicy) -> Iterator[str]:
    if policy.error is not None:
        yield f"The replay ended early: {policy.error}"
    elif not policy.is_complete:
        yield (
            f"Not complete: {policy.num_looks_done} of {policy.num_looks} looks for files are "
            "replayed; the same command goes on."
        )
    fates = total_of_policy(policy).fates
    if not fates:
        yield "No batch was made."
        return
    made = ", ".join(f"{number} {fate}" for fate, number in fates.items())
    yield (
        f"{_count(len(policy.batches), 'batch', 'batches')}, made from "
        f"{policy.batches[0].made_at:%Y-%m-%d} to {policy.batches[-1].made_at:%Y-%m-%d}: {made}."
    )


def _promotions(policy: BacktestedPolicy) -> Iterator[str]:
    promoted = policy.promoted
    if promoted and policy.asks_person:
        yield (
            "promote.mode is approval: a person would have been asked before each promotion. Here "
            "each one is taken as approved."
        )
    if promoted:
        final = promoted[-1]
        against = final.against_first
        measured = (
            "; it was not compared with the first model (evaluate.against_first)"
            if against is None
            else f"; against the first model it wins {against.rate:.1%} "
            f"({against.lower:.1%} to {against.upper:.1%})"
        )
        yield f"The last champion is version {final.version}, of batch {final.number}{measured}."
        change = final.ability_change_since_first
        if change is not None and change < 0:
            yield (
                f"It answers {-100 * change:.1f} points fewer of the ability questions correctly "
                "than the first model. promote.max_total_ability_loss bounds what all promotions "
                "together may lose."
            )
    elif policy.batches:
        yield "The first model would have stayed in use."
    for before, after in worse_promotions(policy):
        assert before.against_first is not None
        assert after.against_first is not None
        yield (
            f"Version {after.version} (batch {after.number}) replaced version {before.version}, "
            f"but wins less against the first model ({after.against_first.rate:.1%} instead of "
            f"{before.against_first.rate:.1%}): a person might have rolled it back. A backtest "
            "does not."
        )


def _holds(policy: BacktestedPolicy) -> Iterator[str]:
    for sentence in policy.waiting:
        yield f"Held for a person, who does not decide in a backtest: {sentence}"
    for batch in policy.batches:
        if batch.fate in ("set aside", "failed"):
            yield f"Batch {batch.number}, {batch.fate}: {batch.why[-1] if batch.why else 'unknown'}"


def _files(policy: BacktestedPolicy) -> Iterator[str]:
    for text in policy.quarantined:
        yield f"In quarantine: {text}"
    if policy.unused_files and policy.is_complete:
        yield (
            f"{_count(len(policy.unused_files), 'file is', 'files are')} in no batch at the end: "
            f"{', '.join(policy.unused_files[:3])}{' …' if len(policy.unused_files) > 3 else ''}."
        )


def _comparability(policy: BacktestedPolicy) -> Iterator[str]:
    num_curves = len({batch.curve for batch in policy.batches if batch.curve is not None})
    if num_curves > 1:
        yield (
            f"Its models were measured on {num_curves} exams or in several ways, and only results "
            "on one exam are comparable; evaluate.prompts is one exam for all."
        )


def backtest_remarks(result: BacktestResult) -> list[str]:
    """What a reader has to know before the policies are compared."""
    remarks = []
    if result.time_source == "modified":
        remarks.append(
            "Not every file has a date in its name, so the modification times are the times of "
            "arrival. Copying may have changed them."
        )
    curves = {
        batch.curve
        for policy in result.policies
        for batch in policy.batches
        if batch.curve is not None
    }
    if len(result.policies) > 1:
        remarks.append(
            "Each policy is replayed once, so a difference between two policies may be luck: the "
            "intervals are over prompts, not over trainings."
        )
        if len(curves) > 1:
            remarks.append(
                "The policies were not all measured on one exam in one way, so their levels cannot "
                "be compared; evaluate.prompts is one exam for all."
            )
    return remarks


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
