"""Runs of the store as `pvar runs` lists them, and as `pvar diff` compares two of them."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from flows.execution import flatten
from flows.run_record import NodeRecord, RunRecord, load_run, newest_runs
from pvar.artifacts import Manifest, Summary
from pvar.errors import UnreadableRunError
from pvar.ports import Store
from tasks.engine.artifact import ArtifactKeys, read_document

RunState = Literal["done", "waiting", "failed", "interrupted", "unfinished"]
"""unfinished: it is running, or was killed."""


class PastRun(NamedTuple):
    """One run. None is unknown, or not there yet."""

    run: str
    state: RunState | Literal["unreadable"]
    """unreadable: this version of pvar cannot read its record."""
    started_at: datetime | None = None
    preset: str | None = None
    win_rate: float | None = None
    win_rate_lower: float | None = None
    win_rate_upper: float | None = None
    gate_passed: bool | None = None
    model: str | None = None
    """`name/version` of the registered model."""
    is_champion: bool | None = None
    """Whether the run made it the champion, which may have moved since."""

    def as_row(self) -> dict[str, object]:
        """As JSON has it."""
        started_at = self.started_at and self.started_at.isoformat(timespec="seconds")
        return self._asdict() | {"started_at": started_at}


class RunDifference(NamedTuple):
    """In what two runs differ. A value that a run does not have is None."""

    settings: dict[str, tuple[object, object]]
    """By dotted key, as pinned."""
    figures: dict[str, dict[str, tuple[object, object]]]
    """By node and name. Only nodes that both runs have, and completed."""
    shared: tuple[str, ...]
    """Nodes with one artifact for both."""


def past_runs(store: Store, last: int) -> Iterator[PastRun]:
    """The newest `last` runs, newest first."""
    for name in newest_runs(store, last):
        try:
            record = load_run(store, name)
        except UnreadableRunError:
            yield PastRun(name, "unreadable")
            continue
        yield past_run(record, store)


def past_run(record: RunRecord, store: Store) -> PastRun:
    """What a record and its artifacts say of the run."""
    summaries = {
        node.name: node_figures(node, store)
        for node in record.nodes
        if node.name in ("evaluate", "promote")
    }
    return _past_run(record, summaries.get("evaluate"), summaries.get("promote"))


def node_figures(node: NodeRecord, store: Store) -> Summary | None:
    """The figures of a stage of a run; None if it did not complete them, or they are gone."""
    return _summary(store, node.artifact) if node.state in ("made", "reused") else None


def run_difference(store: Store, first: str, second: str) -> RunDifference:
    """In what two runs differ. Raises InputError for a run that does not exist."""
    records = [load_run(store, name) for name in (first, second)]
    settings = [flatten(record.config.model_dump(mode="json")) for record in records]
    artifacts = [
        {node.name: node.artifact for node in record.nodes if node.state in ("made", "reused")}
        for record in records
    ]
    figures = {}
    both = [name for name in artifacts[0] if name in artifacts[1]]
    shared = tuple(name for name in both if artifacts[0][name] == artifacts[1][name])
    for name in both:
        if name not in shared:
            one, other = (_summary(store, each[name]) or {} for each in artifacts)
            if found := _differing(one, other):
                figures[name] = found
    return RunDifference(_differing(*settings), figures, shared)


def _past_run(record: RunRecord, result: Summary | None, decision: Summary | None) -> PastRun:
    result, decision = result or {}, decision or {}
    version = decision.get("version")
    return PastRun(
        run=record.run,
        state=_state(record),
        started_at=record.started_at,
        preset=record.preset,
        win_rate=_number(result.get("win_rate")),
        win_rate_lower=_number(result.get("win_rate_lower")),
        win_rate_upper=_number(result.get("win_rate_upper")),
        gate_passed=_flag(decision.get("gate_passed")),
        model=None if version is None else f"{record.config.promote.model_name}/{version}",
        is_champion=_flag(decision.get("promoted")),
    )


def _state(record: RunRecord) -> RunState:
    if (failed := record.failed_node) is not None:
        return "interrupted" if failed.was_interrupted else "failed"
    if record.waiting_node is not None:
        return "waiting"
    return "unfinished" if record.finished_at is None else "done"


def _summary(store: Store, artifact: str) -> Summary | None:
    """The figures of an artifact; None if it is gone."""
    manifest = read_document(store, ArtifactKeys(*artifact.split("/")).manifest, Manifest)
    return None if manifest is None else manifest.summary


def _differing(
    one: Mapping[str, object], other: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    names = dict.fromkeys([*one, *other])
    values = {name: (one.get(name), other.get(name)) for name in names}
    return {name: both for name, both in values.items() if both[0] != both[1]}


def _number(value: float | int | str | bool | None) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _flag(value: float | int | str | bool | None) -> bool | None:
    return None if value is None else bool(value)
