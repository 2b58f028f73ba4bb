"""The progress of an artifact, read from the store without running or changing anything."""

from typing import NamedTuple

from pvar.artifacts import Manifest, Recipe
from pvar.ports import Store
from tasks.engine.artifact import ArtifactKeys, read_document
from tasks.engine.stage_outcome import waiting_of


class Progress(NamedTuple):
    """State of an artifact, for display."""

    state: str
    """complete, missing, what it waits for, or the number of complete shards."""
    rows: str | None
    how_to_go_on: str | None = None
    """What a person does, of an artifact that waits."""


def progress_of(store: Store, keys: ArtifactKeys) -> Progress:
    """Read the manifest, else the recipe and the shards' records."""
    manifest = read_document(store, keys.manifest, Manifest)
    if manifest is not None:
        row_counts = manifest.row_counts
        return Progress("complete", f"{row_counts.rows_in} in, {row_counts.rows_out} out")
    recipe = read_document(store, keys.recipe, Recipe)
    if recipe is None:
        return Progress("missing", None)
    waiting = waiting_of(store, keys)
    if waiting is not None:
        return Progress(f"waits for {waiting.what}", None, waiting.how_to_go_on)
    keys_there = {info.key for info in store.list(f"{keys.root}/shards/")}
    done = sum(keys.record(shard.index) in keys_there for shard in recipe.shards)
    return Progress(f"{done} of {len(recipe.shards)} shards", None)
