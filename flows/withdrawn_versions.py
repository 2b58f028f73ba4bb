"""Which model versions were trained on withdrawn prompts, or began from a model that was.

A policy's training reads pairs (the input `pairs` of its artifact), a reward model's the labels of
prompts (`prompts` and `earlier`, of which a part is held out: counted all the same). It starts from
a model (`policy` or `model` of its configuration), which may have been trained here as well. A
model cannot unlearn a pair, so every version that began from it counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flows.wiring import Wiring
from pvar.artifacts import Recipe
from pvar.errors import ArtifactError
from pvar.labelled_pairs import is_labelled
from pvar.ports import Store
from pvar.records import Pair, Prompt
from tasks.engine.artifact import ArtifactKeys, open_artifact, read_document
from tasks.engine.work_folders import work_folder
from tasks.stages.ingest import INGEST, PROMPTS
from tasks.stages.pair import PAIR, PAIRS
from tasks.stages.reward import REWARD
from tasks.stages.reward_labels import EARLIER
from tasks.stages.train import TRAIN

_READ = {"pairs": PAIR.name, "prompts": INGEST.name, EARLIER: INGEST.name}
"""What a training reads: its input, and the stage that made it."""

_TRAINED = (f"{TRAIN.name}/", f"{REWARD.name}/")


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
    the registry. `erased` are ids that were removed from artifacts that trainings read, by
    `stage/digest`.

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
            start = [each.text for each in recipe.references if each.path in ("policy", "model")]
            if not start or not start[0].startswith(_TRAINED) or start[0] in found:
                break
            found.append(start[0])
        return found

    def ids_of(self, root: str) -> frozenset[str] | None:
        """The wanted prompts among the pairs of a training; None if they are not known."""
        if root not in self.known:
            recipe = self._recipe(root)
            inputs = recipe.inputs if recipe else {}
            read = [(_READ[name], inputs[name]) for name in _READ if name in inputs]
            found = [self._of_input(stage, digest) for stage, digest in read]
            known = [ids for ids in found if ids is not None]
            is_known = bool(found) and len(known) == len(found)
            self.known[root] = frozenset().union(*known) if is_known else None
        return self.known[root]

    def _of_input(self, stage: str, digest: str) -> frozenset[str] | None:
        erased = self.wanted.intersection(self.erased.get(f"{stage}/{digest}", ()))
        try:
            artifact = open_artifact(self.store, stage, digest, self.scratch)
            if stage == PAIR.name:
                ids = [row.prompt_id for row in artifact.rows(PAIRS, Pair)]
            else:
                rows = artifact.rows(PROMPTS, Prompt)
                ids = [row.prompt_id for row in rows if is_labelled(row)]
        except ArtifactError:
            return erased or None
        return erased | self.wanted.intersection(ids)

    def _recipe(self, root: str) -> Recipe | None:
        stage, _, digest = root.partition("/")
        return read_document(self.store, ArtifactKeys(stage, digest).recipe, Recipe)
