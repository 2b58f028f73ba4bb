"""Lineage of models: the graph of artifacts, with the registered versions added."""

from typing import NamedTuple

from flows.run_record import find_run, load_run
from flows.wiring import Wiring
from infra.registered_models import VersionFacts
from pvar.errors import InputError
from tasks.engine.lineage import (
    Entry,
    Lineage,
    Link,
    Listing,
    Step,
    list_artifacts,
    read_lineage,
    with_named,
)
from tasks.graph import CACHES, STAGES


class Trace(NamedTuple):
    """The lineage of one artifact or version, in both directions."""

    made_from: Step
    made_into: Step


def trace(reference: str, wiring: Wiring) -> Trace:
    """The lineage of `models:/name/3`, `models:/name@alias`, of an artifact or of a run, both by
    their first characters; that of a run is of the last artifact that it completed.

    Raises InputError or ModelError unless there is one such thing.
    """
    versions = wiring.registry.versions()
    if reference.startswith("models:"):
        version = wiring.registry.resolve(reference)
        reference = _reference(version.model_name, version.version)
    listing = list_artifacts(wiring.store, (*STAGES, *CACHES), with_shards=False)
    graph = whole_lineage(wiring, versions, listing)
    found = find_run(wiring.store, reference, graph.names)
    if found not in graph.entries:
        found = _end_of_run(found, graph, wiring)
    return Trace(graph.back(found), graph.forward(found))


def _end_of_run(run: str, graph: Lineage, wiring: Wiring) -> str:
    """The last artifact that the run completed and the store has."""
    nodes = load_run(wiring.store, run).nodes
    complete = [
        node.artifact
        for node in nodes
        if node.state in ("made", "reused") and node.artifact in graph.entries
    ]
    if not complete:
        raise InputError(f"the store has no artifact that run {run} completed; name another run")
    return complete[-1]


def whole_lineage(wiring: Wiring, versions: list[VersionFacts], listing: Listing) -> Lineage:
    """The graph of these artifacts and versions."""
    artifacts = read_lineage(wiring.store, listing)
    of_versions = {
        _reference(each.version.model_name, each.version.version): Entry("version", links_of(each))
        for each in versions
    }
    names = {
        each.version.digest: _reference(each.version.model_name, each.version.version)
        for each in versions
        if each.version.artifact is None
    }
    of_artifacts = dict(artifacts.entries)
    for ref, entry in artifacts.entries.items():
        if any(used in names for _, used in entry.made_from):
            links = tuple(Link(role, names.get(used, used)) for role, used in entry.made_from)
            of_artifacts[ref] = entry._replace(made_from=links)
    return with_named({**of_artifacts, **of_versions})


def links_of(facts: VersionFacts) -> tuple[Link, ...]:
    """The artifacts that a version refers to: its model and its evaluation results."""
    results = facts.tags.get("pvar.results")
    links = (("model", facts.version.artifact), ("results", results))
    return tuple(Link(role, ref) for role, ref in links if ref)


def _reference(model_name: str, version: int) -> str:
    return f"models:/{model_name}/{version}"
