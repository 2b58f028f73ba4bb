"""Retention: delete artifacts that nothing refers to, and unused local copies of models."""

import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from flows.model_lineage import links_of, whole_lineage
from flows.wiring import Wiring
from infra.registered_models import VersionFacts
from pvar.errors import DamagedError
from pvar.ports import Store
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.garbage import Plan, delete_artifact, plan_gc
from tasks.engine.lease import LeaseWatch
from tasks.engine.lineage import list_artifacts
from tasks.engine.local_copies import LocalFolder, sized, unused_copies
from tasks.engine.stage_outcome import waiting_of
from tasks.engine.work_folders import abandoned_folders
from tasks.graph import CACHES, STAGES
from tasks.retraining.batch_states import read_records
from tasks.stages.adopt import ADOPT

logger = logging.getLogger(__name__)

AUDITS = "audits/"
RECORDS = ("runs/", "comparisons/", "benchmarks/", AUDITS)
"""Folders of the records of runs, comparisons, benchmarks and audits."""

_PREFIX = re.compile(r"^[a-z]+-")


class _NamedNode(BaseModel):
    artifact: str
    state: str = ""


class _NamedArtifacts(BaseModel):
    """The part of a record that matters here. An older version may have written the record."""

    nodes: tuple[_NamedNode, ...]


@dataclass(frozen=True)
class Sweep:
    """What can be deleted, and the runs that were considered."""

    plan: Plan
    folders: tuple[LocalFolder, ...]
    """Local work folders of processes that no longer run."""
    copies: tuple[LocalFolder, ...]
    """Local copies of models, or none while any process uses one of them."""
    runs: frozenset[str]
    """Keys of all records of runs and comparisons."""
    watch: LeaseWatch
    """What was seen of leases when this was planned."""


def plan_sweep(wiring: Wiring, keep_runs: int | None) -> Sweep:
    """Determine what can be deleted, without deleting anything.

    The artifacts of the newest `keep_runs` records of runs and comparisons are kept (None: of all
    records), those of audits and of every run that still waits for a person, and the decisions on
    reward models of all batches, without which their labels would not be learned again. Raises
    TrackingError if MLflow cannot be reached, and DamagedError if a record cannot be read, because
    its artifacts would then be unknown.
    """
    runs = _runs(wiring.store)
    audits = [run for run in runs if run.startswith(AUDITS)]
    others = [run for run in runs if not run.startswith(AUDITS)]
    newest = others if keep_runs is None else others[len(others) - min(keep_runs, len(others)) :]
    counting = [*newest, *audits]  # audits are few, and do not push runs out
    versions = wiring.registry.versions()
    counting += [run for run in runs if run not in counting and _waits(wiring.store, run)]
    named = _named_by_runs(wiring.store, counting) | _named_by(versions)
    named |= _decisions_on_labels(wiring.store, runs)
    objects = list_artifacts(wiring.store, (*STAGES, *CACHES))
    lineage = whole_lineage(wiring, versions, objects)
    watch = LeaseWatch()
    plan = plan_gc(wiring.store, lineage, objects, named, watch, caches=CACHES)
    with unused_copies(wiring.models, tuple(STAGES)) as copies:
        return Sweep(
            plan,
            tuple(sized(folder) for folder in abandoned_folders(wiring.settings.home)),
            tuple(copies),
            frozenset(runs),
            watch,
        )


def carry_out(sweep: Sweep, wiring: Wiring) -> int:
    """Delete what was planned and is still unused. Returns the number of deleted artifacts."""
    store = wiring.store
    num_deleted = 0
    for garbage in sweep.plan.artifacts:
        since = [run for run in _runs(store) if run not in sweep.runs]
        is_named = garbage.root in _named_by_runs(store, since)
        if is_named or not delete_artifact(store, garbage.root, sweep.watch):
            logger.info("%s is now in use and is kept", garbage.root)
            continue
        num_deleted += 1
    for lease in sweep.plan.stale_leases:
        store.delete(lease.key)
    for folder in sweep.folders:
        shutil.rmtree(folder.path)
    with unused_copies(wiring.models, tuple(STAGES)) as copies:
        for copy in sweep.copies:
            if copy in copies:
                shutil.rmtree(copy.path)
    return num_deleted


def _runs(store: Store) -> list[str]:
    """Keys of the records of all kinds of runs, oldest first, by the time in their names."""
    keys = [
        info.key
        for folder in RECORDS
        for info in store.list(folder)
        if "/" not in info.key.removeprefix(folder)  # below are the results of a study
    ]
    return sorted(
        (key for key in keys if key.endswith(".json")),
        key=lambda key: _PREFIX.sub("", key.rpartition("/")[2]),
    )


def _named_by_runs(store: Store, runs: Iterable[str]) -> set[str]:
    return {node.artifact for run in runs for node in _nodes(store, run)}


def _decisions_on_labels(store: Store, runs: Iterable[str]) -> set[str]:
    """The artifacts of stage adopt of the runs that ended a batch."""
    ended = {f"runs/{record.done.run}.json" for record in read_records(store) if record.done}
    found = _named_by_runs(store, (run for run in runs if run in ended))
    return {root for root in found if root.startswith(f"{ADOPT.name}/")}


def _waits(store: Store, run: str) -> bool:
    """Whether a run waits for a person: a node did, and nobody has gone on with its artifact."""
    for node in _nodes(store, run):
        stage, _, digest = node.artifact.partition("/")
        if node.state == "waiting" and waiting_of(store, ArtifactKeys(stage, digest)) is not None:
            return True
    return False


def _nodes(store: Store, run: str) -> tuple[_NamedNode, ...]:
    try:
        record = _NamedArtifacts.model_validate_json(store.read(run))
    except ValidationError as error:
        raise DamagedError(
            f"{store.uri}/{run} is not a valid run record, so the artifacts that it needs are "
            "unknown; delete or fix that object first"
        ) from error
    return record.nodes


def _named_by(versions: Iterable[VersionFacts]) -> set[str]:
    """The versions' models and results, and the models that they were compared with."""
    named = {link.ref for facts in versions for link in links_of(facts)}
    opponents = {(facts.version.opponent or "").rpartition("#")[2] for facts in versions}
    return named | opponents
