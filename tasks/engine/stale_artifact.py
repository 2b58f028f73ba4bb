"""Artifacts whose inputs were made again with other content: they are discarded and made again."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack

from pvar.artifacts import Manifest, Recipe
from pvar.errors import StageError
from pvar.ports import Store
from tasks.engine.artifact import Artifact, ArtifactKeys, read_document
from tasks.engine.lease import LeaseWatch, hold

logger = logging.getLogger(__name__)

MADE_AGAIN = "its inputs were made again while it was made from the earlier ones"


def manifest_digests(inputs: Mapping[str, Artifact]) -> dict[str, str]:
    """SHA-256 of each input's manifest, which changes with the content of any of its files, but not
    if rows are erased (`tasks/engine/erasure.py`)."""
    return {name: artifact.manifest.first_sha256 for name, artifact in inputs.items()}


def discard_stale(
    store: Store,
    keys: ArtifactKeys,
    recipe: Recipe,
    inputs: Mapping[str, Artifact],
    *,
    ttl_seconds: float,
) -> None:
    """Remove an artifact, complete or not, whose inputs were made again with other content.

    Its shards, its plan and its checkpoints belong to the earlier inputs. If another process still
    works on it and holds a lease, LeaseError is raised. If another process discarded it meanwhile,
    nothing is done. StageError if `inputs` are the earlier ones.
    """
    today = manifest_digests(inputs)
    _refuse_earlier(store, keys, inputs)
    changed = sorted(name for name in today if recipe.made_from.get(name) != today[name])
    logger.warning("%s: made from an earlier %s; making it again", keys.root, ", ".join(changed))
    watch = LeaseWatch()
    prefixes = [keys.lease(shard.index) for shard in recipe.shards]
    watch.held(store, prefixes)  # all at once: each may have to be watched for its time to live
    with ExitStack() as held:
        for prefix in prefixes:
            held.enter_context(hold(store, prefix, ttl_seconds=ttl_seconds, watch=watch))
        # A look before each deletion, because the leases may be lost meanwhile. What is listed
        # before the look is of this recipe, but for names that recur (decision 0027).
        listed = [info.key for info in store.list(f"{keys.root}/")]
        others = {key for key in listed if not key.startswith(f"{keys.root}/leases/")}
        others -= {keys.manifest, keys.recipe}
        for key in (keys.manifest, *sorted(others), keys.recipe):  # the recipe last: until then the
            if read_document(store, keys.recipe, Recipe) != recipe:  # next run comes here again
                return
            store.delete(key)


def _refuse_earlier(store: Store, keys: ArtifactKeys, inputs: Mapping[str, Artifact]) -> None:
    """Raise StageError if an input was made again since this process opened it."""
    for name, artifact in inputs.items():
        current = read_document(store, artifact.keys.manifest, Manifest)
        if current is None or current.first_sha256 != artifact.manifest.first_sha256:
            raise StageError(
                f"{keys.root}: its input {name} ({artifact.keys.root}) was made again since it was "
                "opened; run the stage again"
            )


def refuse_other_plan(store: Store, keys: ArtifactKeys, plan: str) -> None:
    """Raise StageError if the artifact was discarded, or begun anew with another plan."""
    recipe = read_document(store, keys.recipe, Recipe)
    if recipe is None or recipe.plan_digest != plan:
        raise StageError(f"{keys.root}: {MADE_AGAIN}; run the stage again")


def put_manifest(store: Store, keys: ArtifactKeys, recipe: Recipe, manifest: Manifest) -> None:
    """Put the manifest, unless another process has put one of the same inputs. StageError if the
    artifact was discarded meanwhile."""
    while read_document(store, keys.recipe, Recipe) == recipe:
        if store.create(keys.manifest, manifest.to_json()):
            return
        existing = read_document(store, keys.manifest, Manifest)
        if existing is not None and existing.inputs == manifest.inputs:
            return
        if read_document(store, keys.recipe, Recipe) == recipe:
            # Of a process that was stopped since before the inputs were made again.
            store.delete(keys.manifest)
    raise StageError(f"{keys.root}: {MADE_AGAIN}; run the stage again")
