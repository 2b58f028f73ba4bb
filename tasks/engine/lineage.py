"""What was made from what: a graph read from the recipes in the store.

An artifact is made from its inputs, from the artifacts that its configuration names (the policy
that a model was trained from) and from what came from outside: data, models, benchmark files. Each
is known by its digest, so nothing here can change under a name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Recipe
from pvar.errors import InputError
from pvar.ports import Store
from tasks.engine.artifact import ArtifactKeys, read_document

State = Literal["complete", "incomplete", "missing", "version", "outside"]
"""missing: an artifact that others name and the store does not hold."""

_ARTIFACT = re.compile(r"[a-z]+/[0-9a-f]{16}")
_RECIPE = re.compile(r"([a-z]+)/([0-9a-f]{16})/recipe\.json")


class Link(NamedTuple):
    """One thing that something was made from."""

    role: str
    """Name of the input, or of the field."""
    ref: str


class Entry(NamedTuple):
    """One thing of the graph and what it was made from."""

    state: State
    made_from: tuple[Link, ...] = ()


class Step(BaseModel):
    """A node of the tree that people see, and its branches."""

    model_config = ConfigDict(frozen=True)

    role: str
    ref: str
    state: State
    is_repeated: bool = False
    """Its branches are shown where it comes first."""
    branches: tuple["Step", ...] = ()


@dataclass(frozen=True)
class Lineage:
    """Everything that is known, by its reference: `stage/digest`, or what comes from outside."""

    entries: Mapping[str, Entry]

    def find(self, text: str) -> str:
        """The reference that `text` is or begins; InputError if there is none, or several."""
        known = [ref for ref, entry in self.entries.items() if entry.state != "outside"]
        found = [text] if text in known else [ref for ref in known if ref.startswith(text)]
        if len(found) != 1:
            what = f"begins {len(found)} of them: {', '.join(sorted(found)[:3])}" if found else ""
            raise InputError(
                f"{text!r} {what or 'is nothing that the store holds'}; give stage/digest as in "
                "pvar show, models:/name/3 or models:/name@champion"
            )
        return found[0]

    def back(self, ref: str) -> Step:
        """What it was made from, down to what came from outside."""
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
            branches = tuple(self._step(each, links, seen) for each in links[link.ref])
        return Step(
            role=link.role,
            ref=link.ref,
            state=self.entries[link.ref].state,
            is_repeated=is_repeated,
            branches=branches,
        )


def read_lineage(store: Store, stages: tuple[str, ...]) -> Lineage:
    """The graph of all artifacts of these stages; DamagedError for a recipe that is none."""
    recipes: dict[str, Recipe] = {}
    complete: set[str] = set()
    for stage in stages:
        for info in store.list(f"{stage}/"):
            root, _, name = info.key.rpartition("/")
            if name == "manifest.json":
                complete.add(root)
            if _RECIPE.fullmatch(info.key) and (recipe := _recipe(store, root)):
                recipes[root] = recipe
    by_digest = {root.partition("/")[2]: root for root in recipes}
    entries = {
        root: Entry("complete" if root in complete else "incomplete", _links(recipe, by_digest))
        for root, recipe in recipes.items()
    }
    return with_named(entries)


def with_named(entries: Mapping[str, Entry]) -> Lineage:
    """A graph of these entries and of everything that they name."""
    every = dict(entries)
    for entry in entries.values():
        for _, ref in entry.made_from:
            every.setdefault(ref, Entry("missing" if is_artifact(ref) else "outside"))
    return Lineage(every)


def is_artifact(ref: str) -> bool:
    """Whether the reference is `stage/digest`; the stage is `?` where only the digest is known."""
    return ref.startswith("?/") or _ARTIFACT.fullmatch(ref) is not None


def _recipe(store: Store, root: str) -> Recipe | None:
    stage, _, digest = root.partition("/")
    return read_document(store, ArtifactKeys(stage, digest).recipe, Recipe)


def _links(recipe: Recipe, by_digest: Mapping[str, str]) -> tuple[Link, ...]:
    """Inputs first; what the configuration names beside them is not named twice."""
    inputs = [
        Link(name, by_digest.get(digest, f"?/{digest}")) for name, digest in recipe.inputs.items()
    ]
    known = {link.ref for link in inputs}
    named = [Link(each.field, each.text) for each in recipe.references]
    return (*inputs, *(link for link in named if link.ref not in known))
