"""The lineage graph of artifacts, read from the recipes in the store.

An artifact is made from its inputs, from the artifacts that its configuration refers to (the policy
from which a model was trained) and from external data, models and benchmark files. All are
identified by digest, so their content cannot change.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Recipe
from pvar.ports import ObjectInfo, Store
from tasks.engine.artifact import ArtifactKeys, read_document

State = Literal["complete", "incomplete", "missing", "version", "outside"]
"""missing: an artifact that others refer to and that is not in the store."""

_ARTIFACT = re.compile(r"[a-z]+/[0-9a-f]{16}")

Listing = Mapping[str, Sequence[ObjectInfo]]
"""`stage/digest` → the artifact's objects, in key order."""

NUM_READERS = 16
"""Recipes that are read at once: each is a request of its own, which takes S3 some milliseconds."""

NUM_TRIED = 4
"""Recipes that are read first, one by one, to see how long one takes."""

QUICK_SECONDS = 0.001
"""A recipe that takes less is on a local disk, where threads would only wait for each other."""


class Link(NamedTuple):
    """An edge of the graph: one thing from which something was made."""

    role: str
    """Name of the input, or of the field."""
    ref: str


class Entry(NamedTuple):
    """A node of the graph, with the links to what it was made from."""

    state: State
    made_from: tuple[Link, ...] = ()


class Step(BaseModel):
    """A node of the displayed tree, with its branches."""

    model_config = ConfigDict(frozen=True)

    role: str
    ref: str
    state: State
    is_repeated: bool = False
    """Whether the node was shown before; its branches are shown only the first time."""
    branches: tuple["Step", ...] = ()


@dataclass(frozen=True)
class Lineage:
    """All nodes by reference: `stage/digest`, or an external reference."""

    entries: Mapping[str, Entry]

    @property
    def names(self) -> list[str]:
        """What is in the store, or was: artifacts and versions, in order."""
        return sorted(ref for ref, entry in self.entries.items() if entry.state != "outside")

    def back(self, ref: str) -> Step:
        """What it was made from, down to external references."""
        return self._step(Link("", ref), {r: e.made_from for r, e in self.entries.items()}, set())

    def forward(self, ref: str) -> Step:
        """What was made from it, up to model versions."""
        made_into: dict[str, list[Link]] = {}
        for result, entry in self.entries.items():
            for role, used in entry.made_from:
                made_into.setdefault(used, []).append(Link(role, result))
        return self._step(
            Link("", ref), {r: tuple(made_into.get(r, ())) for r in self.entries}, set()
        )

    def _step(self, link: Link, links: Mapping[str, tuple[Link, ...]], seen: set[str]) -> Step:
        is_repeated = link.ref in seen and bool(links[link.ref])
        branches: tuple[Step, ...] = ()
        if link.ref not in seen:
            seen.add(link.ref)
            branches = tuple(self._step(branch, links, seen) for branch in links[link.ref])
        return Step(
            role=link.role,
            ref=link.ref,
            state=self.entries[link.ref].state,
            is_repeated=is_repeated,
            branches=branches,
        )


def list_artifacts(store: Store, stages: Iterable[str], *, with_shards: bool = True) -> Listing:
    """The objects of all artifacts of these stages. Without shards it has the recipes, manifests
    and what else lies beside them, which is all that the graph needs."""
    found: dict[str, list[ObjectInfo]] = {}
    for stage in stages:
        for info in store.list(f"{stage}/", None if with_shards else 1):
            end = info.key.find("/", len(stage) + 1)
            if end != -1:  # else no object of an artifact
                found.setdefault(info.key[:end], []).append(info)
    return found


def read_lineage(store: Store, listing: Listing) -> Lineage:
    """The graph of these artifacts; DamagedError for an invalid recipe."""
    there = {info.key for infos in listing.values() for info in infos}
    begun = [root for root in listing if is_artifact(root) and f"{root}/recipe.json" in there]
    recipes = _recipes(store, begun)
    by_digest = {root.partition("/")[2]: root for root in recipes}
    entries = {
        root: Entry(
            "complete" if f"{root}/manifest.json" in there else "incomplete",
            _links(recipes[root], by_digest),
        )
        for root in begun
        if root in recipes
    }
    return with_named(entries)


def with_named(entries: Mapping[str, Entry]) -> Lineage:
    """A graph of these entries and of everything to which they refer."""
    every = dict(entries)
    for entry in entries.values():
        for _, ref in entry.made_from:
            every.setdefault(ref, Entry("missing" if is_artifact(ref) else "outside"))
    return Lineage(every)


def is_artifact(ref: str) -> bool:
    """Whether the reference is `stage/digest`; the stage is `?` if only the digest is known."""
    return ref.startswith("?/") or _ARTIFACT.fullmatch(ref) is not None


def _recipes(store: Store, roots: Sequence[str]) -> dict[str, Recipe]:
    """The recipes of these artifacts, without those that were deleted meanwhile."""
    tried, rest = roots[:NUM_TRIED], roots[NUM_TRIED:]
    began = time.perf_counter()
    found = _read_recipes(store, tried)
    if time.perf_counter() - began < QUICK_SECONDS * len(tried):
        return found | _read_recipes(store, rest)
    with ThreadPoolExecutor(NUM_READERS) as readers:
        parts = [rest[number::NUM_READERS] for number in range(NUM_READERS)]
        for read in readers.map(partial(_read_recipes, store), parts):
            found |= read
    return found


def _read_recipes(store: Store, roots: Iterable[str]) -> dict[str, Recipe]:
    found = {}
    for root in roots:
        recipe = read_document(store, ArtifactKeys(*root.split("/")).recipe, Recipe)
        if recipe is not None:
            found[root] = recipe
    return found


def _links(recipe: Recipe, by_digest: Mapping[str, str]) -> tuple[Link, ...]:
    """Links to the inputs first, then to other references of the configuration."""
    inputs = [
        Link(name, by_digest.get(digest, f"?/{digest}")) for name, digest in recipe.inputs.items()
    ]
    known = {link.ref for link in inputs}
    named = [Link(reference.field, reference.text) for reference in recipe.references]
    return (*inputs, *(link for link in named if link.ref not in known))
