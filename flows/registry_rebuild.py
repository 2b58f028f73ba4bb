"""Make the models, versions, tags and aliases of a lost MLflow registry again from the store.

The store has a record of every decision of stage promote (which version of which model, of which
artifact and results), the models themselves, and the moves of the champion
(`infra/promotion_history.py`). A version without a decision, because its run was killed or waits
for a person, is registered again by its next run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flows.wiring import Wiring
from pvar.artifacts import Recipe
from pvar.errors import IncompleteError, ModelError
from pvar.ports import RegisteredVersion
from pvar.runtime_config import RuntimeConfig
from tasks.engine.artifact import Artifact, open_artifact, read_document
from tasks.engine.lineage import Lineage, read_lineage
from tasks.engine.stage import Job
from tasks.engine.work_folders import work_folder
from tasks.graph import STAGES
from tasks.stages.promote import PROMOTE, PromoteSpec, read_decision, version_tags
from tasks.stages.train import MODEL


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


class _Decision(NamedTuple):
    """A complete artifact of stage promote."""

    artifact: Artifact
    model_name: str
    version: int


def rebuild_registry(wiring: Wiring, model_name: str | None = None) -> list[Rebuilt]:
    """Rebuild one model, or all of which the store has a decision; ModelError if there is none."""
    with work_folder(wiring.settings.home, "registry") as scratch:
        decisions = _newest_decisions(wiring, scratch)
        known = sorted({each.model_name for each in decisions})
        names = [name for name in known if model_name in (None, name)]
        if not names:
            what = "a registered model" if model_name is None else f"the model {model_name!r}"
            others = f"; it has some on {', '.join(known)}" if known else ""
            raise ModelError(f"{wiring.store.uri} has no decision on {what}{others}")
        graph = read_lineage(wiring.store, tuple(STAGES))
        return [
            _rebuild(name, [each for each in decisions if each.model_name == name], graph, wiring)
            for name in names
        ]


def _newest_decisions(wiring: Wiring, scratch: Path) -> list[_Decision]:
    """The last decision on each version, by name and number.

    A version that was compared again, with another champion, has several.
    """
    store = wiring.store
    manifests = [
        info for info in store.list(f"{PROMOTE.name}/") if info.key.endswith("/manifest.json")
    ]
    found: dict[tuple[str, int], _Decision] = {}
    for info in sorted(manifests, key=lambda each: each.modified):
        digest = info.key.split("/")[1]
        artifact = open_artifact(store, PROMOTE.name, digest, scratch)
        record = read_decision(artifact)
        found[record.model_name, record.version] = _Decision(
            artifact, record.model_name, record.version
        )
    return [found[key] for key in sorted(found)]


def _rebuild(name: str, decisions: list[_Decision], graph: Lineage, wiring: Wiring) -> Rebuilt:
    made: list[int] = []
    kept: list[int] = []
    gone: list[str] = []
    for decision in decisions:
        with work_folder(wiring.settings.home, "registry") as scratch:
            try:
                job = _job(decision.artifact, graph, wiring, scratch)
                model = job.inputs["model"]
                version = RegisteredVersion(name, decision.version, model.keys.root)
                is_new = wiring.registry.restore(version, model.folder(MODEL), version_tags(job))
            except (IncompleteError, ModelError) as error:
                gone.append(f"{name} version {decision.version} cannot be made again: {error}")
            else:
                (made if is_new else kept).append(decision.version)
    champion = wiring.registry.restore_aliases(name)
    return Rebuilt(name, tuple(made), tuple(kept), tuple(gone), champion)


def _job(artifact: Artifact, graph: Lineage, wiring: Wiring, scratch: Path) -> Job[PromoteSpec]:
    """The job of a decision. IncompleteError if one of its inputs is gone."""
    keys = artifact.keys
    recipe = read_document(wiring.store, keys.recipe, Recipe)
    if recipe is None:
        raise IncompleteError(f"{keys.recipe} is gone")
    stages = {link.role: link.ref.partition("/")[0] for link in graph.entries[keys.root].made_from}
    if lost := [name for name in recipe.inputs if stages[name] == "?"]:
        raise IncompleteError(f"{keys.root} was made from {recipe.inputs[lost[0]]}, which is gone")
    return Job(
        spec=PromoteSpec.model_validate(recipe.config),
        runtime=RuntimeConfig(),
        inputs={
            name: open_artifact(wiring.store, stages[name], digest, scratch)
            for name, digest in recipe.inputs.items()
        },
        ports=wiring,
        keys=keys,
        scratch=scratch,
        log_step=lambda step, figures: None,
    )
