"""A node of a run's graph: one artifact, with what its digest is computed from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from pvar.artifacts import Recipe
from tasks.engine.artifact import ArtifactKeys
from tasks.engine.stage import Stage


@dataclass(frozen=True)
class Node:
    """One artifact of a run. Its recipe and keys are computed once: a plan asks for them often."""

    name: str
    stage: Stage[Any]
    spec: BaseModel
    inputs: Mapping[str, ArtifactKeys]

    @cached_property
    def recipe(self) -> Recipe:
        """The content that is hashed to the digest."""
        inputs = {name: keys.digest for name, keys in self.inputs.items()}
        return Recipe.of(self.stage.name, self.stage.version, self.spec, inputs)

    @cached_property
    def keys(self) -> ArtifactKeys:
        """The keys of the artifact in the store."""
        return ArtifactKeys(self.stage.name, self.recipe.digest)
