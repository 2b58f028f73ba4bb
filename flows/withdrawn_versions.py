"""Which model versions were trained on withdrawn prompts, or began from a model that was.

A version's training reads pairs (the input `pairs` of its artifact) and starts from a model (the
`policy` of its configuration), which may have been trained here as well. A model cannot unlearn a
pair, so every version that began from it counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.wiring import Wiring
from pvar.artifacts import Recipe
from pvar.errors import ArtifactError
from pvar.ports import Store
from pvar.records import Pair
from tasks.engine.artifact import ArtifactKeys, open_artifact, read_document
from tasks.engine.work_folders import work_folder
from tasks.stages.pair import PAIR, PAIRS


class TrainedOn(BaseModel):
    """A registered version, and the withdrawn prompts that it was trained on."""

    model_config = ConfigDict(frozen=True)

    version: str
    """`models:/name/3`."""
    prompt_ids: tuple[str, ...]
    """Withdrawn prompts of its own pairs."""
    inherited_prompt_ids: tuple[str, ...]
    """Those of the models from which its training began."""
    unknown: tuple[str, ...]
    """Artifacts that are gone, so that their pairs are not known."""


def versions_trained_on(
    prompt_ids: Collection[str], wiring: Wiring, erased: Mapping[str, Collection[str]]
) -> list[TrainedOn]:
    """The versions that were, or may have been, trained on some of these prompts, in the order of
    the registry. `erased` are ids that were removed from artifacts with pairs, by `pair/digest`.

    Raises TrackingError if MLflow cannot be reached.
    """
    found = []
    with work_folder(wiring.settings.home, "lineage") as scratch:
        trainings = _Trainings(wiring.store, frozenset(prompt_ids), erased, scratch)
        for facts in wiring.registry.versions():
            version = facts.version
            if version.artifact is None:
                continue
            own, inherited, unknown = set[str](), set[str](), set[str]()
            for generation, root in enumerate(trainings.ancestry(version.artifact)):
                ids = trainings.ids_of(root)
                if ids is None:
                    unknown.add(root)
                else:
                    (inherited if generation else own).update(ids)
            if own or inherited or unknown:
                found.append(
                    TrainedOn(
                        version=f"models:/{version.model_name}/{version.version}",
                        prompt_ids=tuple(sorted(own)),
                        inherited_prompt_ids=tuple(sorted(inherited)),
                        unknown=tuple(sorted(unknown)),
                    )
                )
    return found


@dataclass
class _Trainings:
    """What trainings read, each looked up once."""

    store: Store
    wanted: frozenset[str]
    erased: Mapping[str, Collection[str]]
    scratch: Path
    known: dict[str, frozenset[str] | None] = field(default_factory=dict)

    def ancestry(self, root: str) -> list[str]:
        """The training `train/digest`, the one whose model it started from, and so on."""
        found = [root]
        while recipe := self._recipe(found[-1]):
            start = [each.text for each in recipe.references if each.path == "policy"]
            if not start or not start[0].startswith("train/") or start[0] in found:
                break
            found.append(start[0])
        return found

    def ids_of(self, root: str) -> frozenset[str] | None:
        """The wanted prompts among the pairs of a training; None if they are not known."""
        if root not in self.known:
            recipe = self._recipe(root)
            pairs = recipe.inputs.get("pairs") if recipe else None
            self.known[root] = None if pairs is None else self._of_pairs(pairs)
        return self.known[root]

    def _of_pairs(self, digest: str) -> frozenset[str] | None:
        erased = self.wanted.intersection(self.erased.get(f"{PAIR.name}/{digest}", ()))
        try:
            rows = open_artifact(self.store, PAIR.name, digest, self.scratch).rows(PAIRS, Pair)
        except ArtifactError:
            return erased or None
        return erased | self.wanted.intersection(row.prompt_id for row in rows)

    def _recipe(self, root: str) -> Recipe | None:
        stage, _, digest = root.partition("/")
        return read_document(self.store, ArtifactKeys(stage, digest).recipe, Recipe)
