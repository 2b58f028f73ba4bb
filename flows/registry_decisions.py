"""Find in the store which version of which model each comparison of stage promote was.

A complete promote artifact has the number in its record. An artifact that is not complete, because
its run was killed or was not resumed after an approval, has none: the number is then that of the
person's decision on its results, or of the move of the champion that names the artifact.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from flows.run_record import opponents_of_runs
from infra.promotion_history import PromotionHistory
from pvar.artifacts import Recipe
from pvar.errors import ArtifactError, DamagedError, IncompleteError, NotFoundError
from pvar.ports import Store
from pvar.references import is_pinned
from tasks.engine.artifact import ArtifactKeys, open_artifact, read_document
from tasks.stages.person_decision import decided_version
from tasks.stages.promote import PROMOTE, passed_reason, read_decision
from tasks.stages.promotion_gate import PromoteSpec


class Decision(NamedTuple):
    """The comparison of one version."""

    keys: ArtifactKeys
    spec: PromoteSpec
    inputs: dict[str, str]
    """Input name → digest of that artifact."""
    version: int
    note: str = ""
    """What was recorded beside the gate's checks; empty if the stage did not complete."""

    @property
    def model_name(self) -> str:
        """Name of the registered model."""
        return self.spec.gate.model_name


class Fault(NamedTuple):
    """A promote artifact that cannot be read."""

    model_name: str | None
    """None if its recipe cannot be read either."""
    sentence: str


class Decisions(NamedTuple):
    """What stage promote left in a store."""

    found: list[Decision]
    """The last one on each version, by name and number."""
    faults: list[Fault]


def newest_decisions(store: Store, scratch: Path) -> Decisions:
    """The last decision on each version, and the artifacts that cannot be read.

    A version that was compared again, with another champion, has several.
    """
    found: dict[tuple[str, int], Decision] = {}
    faults: list[Fault] = []
    for keys, is_complete in _promote_artifacts(store):
        try:
            decision = _decision(store, keys, scratch, is_complete=is_complete)
        except (ArtifactError, NotFoundError) as error:
            sentence = f"{keys.root} cannot be read, and what it registered is not known: {error}"
            faults.append(Fault(_model_name(store, keys), sentence))
        else:
            if decision is not None:
                found[decision.model_name, decision.version] = decision
    return Decisions(_with_locations([found[key] for key in sorted(found)], store), faults)


def _promote_artifacts(store: Store) -> Iterator[tuple[ArtifactKeys, bool]]:
    """Each artifact, and whether it is complete. The last one that was completed or begun is last.

    A comparison begins after the decision on the one before, so the order is that of decisions.
    """
    begun: dict[str, datetime] = {}
    complete: dict[str, datetime] = {}
    for info in store.list(f"{PROMOTE.name}/"):
        root, _, name = info.key.rpartition("/")
        if name in ("recipe.json", "manifest.json"):
            (begun if name == "recipe.json" else complete)[root] = info.modified
    times = begun | complete
    for root in sorted(times, key=times.__getitem__):
        yield ArtifactKeys(PROMOTE.name, root.partition("/")[2]), root in complete


def _decision(
    store: Store, keys: ArtifactKeys, scratch: Path, *, is_complete: bool
) -> Decision | None:
    """The decision of an artifact; None if it registered nothing that anybody decided on."""
    recipe = read_document(store, keys.recipe, Recipe)
    if recipe is None:
        raise IncompleteError(f"{store.uri}/{keys.recipe} is gone")
    spec = _spec(store, keys, recipe)
    if not is_complete:
        version = _version_of_incomplete(store, keys, spec, recipe)
        return None if version is None else Decision(keys, spec, recipe.inputs, version)
    try:
        record = read_decision(open_artifact(store, PROMOTE.name, keys.digest, scratch))
    except ValidationError as error:
        raise DamagedError(f"its record is not valid ({error.error_count()} faults)") from error
    if record.opponent is not None:
        spec = spec.model_copy(update={"opponent": record.opponent})
    return Decision(keys, spec, recipe.inputs, record.version, record.note)


def _spec(store: Store, keys: ArtifactKeys, recipe: Recipe) -> PromoteSpec:
    try:
        return PromoteSpec.model_validate(recipe.config)
    except ValidationError as error:
        raise DamagedError(
            f"{store.uri}/{keys.recipe} has settings that this version of pvar does not know: "
            f"{error.errors()[0]['msg']}"
        ) from error


def _version_of_incomplete(
    store: Store, keys: ArtifactKeys, spec: PromoteSpec, recipe: Recipe
) -> int | None:
    name = spec.gate.model_name
    decided = decided_version(store, name, recipe.inputs["results"])
    if decided is not None:
        return decided
    reason = passed_reason(keys)
    moves = PromotionHistory(store, name).moves()
    return next((move.to_version for move in moves if move.reason == reason), None)


def _model_name(store: Store, keys: ArtifactKeys) -> str | None:
    try:
        recipe = read_document(store, keys.recipe, Recipe)
        return None if recipe is None else _spec(store, keys, recipe).gate.model_name
    except ArtifactError:
        return None


def _with_locations(decisions: list[Decision], store: Store) -> list[Decision]:
    """The decisions with pinned opponents, for recipes have the digests of references only.

    An opponent that neither its record nor a run names with its location keeps its digest alone.
    """
    of_runs = None
    placed = []
    for decision in decisions:
        opponent = decision.spec.opponent
        if opponent.startswith("train/"):
            opponent = f"artifact:{opponent}#{opponent}"
        elif not is_pinned(opponent):
            of_runs = opponents_of_runs(store) if of_runs is None else of_runs
            named = of_runs.get(decision.keys.root, opponent)
            opponent = named if named.rpartition("#")[2] == opponent else opponent
        spec = decision.spec.model_copy(update={"opponent": opponent})
        placed.append(decision._replace(spec=spec))
    return placed
