"""Make the models, versions, tags and aliases of a lost MLflow registry again from the store.

The store has a record of every decision of stages promote and adopt (which version of which model,
of which artifact and results), the models themselves, and the moves of the champion
(`infra/promotion_history.py`). A version on which nobody decided, because its run was killed or
waits for a person, is registered again by its next run.

The versions of a model are made in the order of their numbers, under a lease, because MLflow gives
each number once. A rebuild that was stopped is completed by the next one.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flows.registry_decisions import Decision, newest_decisions
from flows.reward_versions import reward_versions
from flows.wiring import Wiring
from infra.promotion_history import PromotionHistory
from pvar.errors import ArtifactError, IncompleteError, ModelError, NotFoundError
from pvar.ports import RegisteredVersion, Store
from pvar.runtime_config import RuntimeConfig
from tasks.engine.artifact import open_artifact
from tasks.engine.lease import hold
from tasks.engine.stage import Job
from tasks.engine.work_folders import work_folder
from tasks.graph import STAGES
from tasks.stages.adopt import AdoptionRecord
from tasks.stages.promote import version_tags
from tasks.stages.promotion_gate import PromoteSpec
from tasks.stages.train import MODEL
from tasks.stages.version_origin import tags_of_facts


def lease_prefix(model_name: str) -> str:
    """Prefix of the leases on the rebuild of a model."""
    return f"rebuilds/{model_name}"


class Rebuilt(NamedTuple):
    """The result for one registered model."""

    model_name: str
    made: tuple[int, ...]
    """Versions that were registered, or whose files were uploaded."""
    kept: tuple[int, ...]
    """Versions that were there."""
    gone: tuple[str, ...]
    """One sentence per version that could not be made again."""
    champion: int | None

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        made = f"versions {', '.join(map(str, self.made))} made again" if self.made else "none made"
        there = f", {len(self.kept)} were there" if self.kept else ""
        champion = "no champion" if self.champion is None else f"champion: version {self.champion}"
        yield f"{self.model_name}: {made}{there}; {champion}"
        yield from self.gone


def rebuild_registry(wiring: Wiring, model_name: str | None = None) -> list[Rebuilt]:
    """Rebuild one model, or all of which the store has a decision; ModelError if there is none.

    LeaseError if another process rebuilds one of them.
    """
    with work_folder(wiring.settings.home, "registry") as scratch:
        of_policies, faults = newest_decisions(wiring.store, scratch)
        of_reward_models = reward_versions(wiring.store, scratch)
    decisions: list[Decision | AdoptionRecord] = [*of_policies, *of_reward_models]
    known = {decision.model_name for decision in decisions}
    known |= {fault.model_name for fault in faults if fault.model_name is not None}
    names = [name for name in sorted(known) if model_name in (None, name)]
    if not names:
        what = "a registered model" if model_name is None else f"the model {model_name!r}"
        others = ", ".join(sorted(known)) or "none"
        unread = "".join(f"; {fault.sentence}" for fault in faults)
        raise ModelError(
            f"{wiring.store.uri} has no decision on {what}; it has some on: {others}; check the "
            f"name and PVAR_STORE_URI{unread}"
        )
    stages = _stages_of_artifacts(wiring.store)
    return [
        _rebuild(
            name,
            [decision for decision in decisions if decision.model_name == name],
            [fault.sentence for fault in faults if fault.model_name in (None, name)],
            stages,
            wiring,
        )
        for name in names
    ]


def _stages_of_artifacts(store: Store) -> dict[str, str]:
    """Digest → stage of every artifact in the store."""
    found = {}
    for stage in STAGES:
        for info in store.list(f"{stage}/"):
            digest, _, name = info.key.removeprefix(f"{stage}/").partition("/")
            if name == "recipe.json":
                found[digest] = stage
    return found


def _rebuild(
    name: str,
    decisions: Sequence[Decision | AdoptionRecord],
    faults: list[str],
    stages: Mapping[str, str],
    wiring: Wiring,
) -> Rebuilt:
    made: list[int] = []
    kept: list[int] = []
    gone = list(faults)
    with hold(wiring.store, lease_prefix(name)) as lease:
        for decision in decisions:
            assert decision.version is not None
            lease.check()
            try:
                is_new = _restore(decision, stages, wiring)
            except (ArtifactError, ModelError, NotFoundError) as error:
                gone.append(f"{name} version {decision.version} cannot be made again: {error}")
            else:
                (made if is_new else kept).append(decision.version)
        champion = wiring.registry.restore_aliases(name)
    newest = PromotionHistory(wiring.store, name).newest()
    wanted = newest.move.to_version if newest else None
    if wanted is not None and wanted != champion and wanted not in (*made, *kept):
        gone.append(
            f"{name} version {wanted}, the champion by the history, is not there; after it was "
            f"made again: pvar rollback {name} --to {wanted} --reason TEXT"
        )
    return Rebuilt(name, tuple(made), tuple(kept), tuple(gone), champion)


def _restore(
    decision: Decision | AdoptionRecord, stages: Mapping[str, str], wiring: Wiring
) -> bool:
    """Register one version, or upload its files; False if it is all there."""
    with work_folder(wiring.settings.home, "registry") as scratch:
        if isinstance(decision, AdoptionRecord):
            return _restore_reward_model(decision, wiring, scratch)
        job = _job(decision, stages, wiring, scratch)
        model = job.inputs["model"]
        version = RegisteredVersion(decision.model_name, decision.version, model.keys.root)
        # What stands in for a real model is in the note alone: it is no part of a recipe.
        tags = version_tags(job) | tags_of_facts({"note": decision.note})
        return wiring.registry.restore(version, model.folder(MODEL), tags)


def _restore_reward_model(record: AdoptionRecord, wiring: Wiring, scratch: Path) -> bool:
    assert record.version is not None
    stage, _, digest = (record.artifact or "").partition("/")
    model = open_artifact(wiring.store, stage, digest, scratch)
    version = RegisteredVersion(record.model_name, record.version, record.artifact)
    return wiring.registry.restore(version, model.folder(MODEL), record.tags)


def _job(
    decision: Decision, stages: Mapping[str, str], wiring: Wiring, scratch: Path
) -> Job[PromoteSpec]:
    """The job of a decision. IncompleteError if one of its inputs is gone."""
    root = decision.keys.root
    if lost := [digest for digest in decision.inputs.values() if digest not in stages]:
        raise IncompleteError(f"{root} was made from {lost[0]}, which is gone")
    return Job(
        spec=decision.spec,
        runtime=RuntimeConfig(),
        inputs={
            name: open_artifact(wiring.store, stages[digest], digest, scratch)
            for name, digest in decision.inputs.items()
        },
        ports=wiring,
        keys=decision.keys,
        scratch=scratch,
        log_step=lambda step, figures: None,
    )
