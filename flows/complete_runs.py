"""A run that is complete already, seen from the store before anything slow is started.

To find every artifact of a configuration complete takes seconds. The server, Prefect, MLflow and
the libraries of models, which a run needs, take several times as long. So a repeat of a complete
run makes nothing, starts nothing and records nothing: the run that is there has it all. Where a
Prefect server is configured, every run is a flow run, and nothing here is asked.
"""

from collections.abc import Iterator
from contextlib import suppress

from flows.pinning import pin
from flows.placed_stages import is_complete
from flows.run_record import RunRecord, load_run, newest_runs
from flows.wiring import Wiring
from pvar.config import PipelineConfig
from pvar.errors import UnreadableRunError
from tasks.engine.node import Node
from tasks.graph import plan_nodes

MOST_RECORDS = 20
"""The newest records, among which the earlier run is sought. A repeat of an older one is a run."""


def complete_run(config: PipelineConfig, wiring: Wiring) -> RunRecord | None:
    """The newest run of this configuration, with every node reused; None unless it has ended and
    all of its artifacts are complete and current.

    Settings of `runtime` change no result and may differ.
    """
    pinned = pin(config, wiring)
    nodes = plan_nodes(pinned)
    if not all(is_complete(node, wiring) for node in nodes.values()):
        return None
    for record in _runs_of(pinned, wiring):
        if _has_ended(record, nodes):
            return _reused(record)
    return None


def newest_run_of(pinned: PipelineConfig, wiring: Wiring) -> RunRecord | None:
    """The newest run of a pinned configuration, in whatever state; None among the newest records.

    Settings of `runtime` may differ.
    """
    return next(_runs_of(pinned, wiring), None)


def _runs_of(pinned: PipelineConfig, wiring: Wiring) -> Iterator[RunRecord]:
    for name in newest_runs(wiring.store, MOST_RECORDS):
        with suppress(UnreadableRunError):  # of another version
            record = load_run(wiring.store, name)
            if record.config.model_copy(update={"runtime": pinned.runtime}) == pinned:
                yield record


def _has_ended(record: RunRecord, nodes: dict[str, Node]) -> bool:
    return (
        record.finished_at is not None
        and all(each.state in ("made", "reused") for each in record.nodes)
        and [(each.name, each.artifact) for each in record.nodes]
        == [(node.name, node.keys.root) for node in nodes.values()]
    )


def _reused(record: RunRecord) -> RunRecord:
    nodes = tuple(
        each.model_copy(update={"state": "reused", "seconds": None}) for each in record.nodes
    )
    return record.model_copy(update={"nodes": nodes})
