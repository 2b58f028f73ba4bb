"""What a registered version was trained on and how it was measured, as tags of the version.

They are read from the recipes in the store. What is not there is left out.
"""

from collections.abc import Mapping

from pvar.artifacts import Recipe
from pvar.gate import Check, GateDecision
from tasks.engine.artifact import Artifact, ArtifactKeys, read_document
from tasks.stages.ingest import INGEST
from tasks.stages.pair import PAIR

ORIGIN_TAGS = {
    "source": "pvar.source",
    "num_pairs": "pvar.num_pairs",
    "method": "pvar.method",
    "policy": "pvar.policy",
    "judge": "pvar.judge",
    "num_judged": "pvar.num_judged",
    "reasons": "pvar.gate_reasons",
    "note": "pvar.gate_note",
}
"""Fact → tag of a registered version."""

MAX_CHARACTERS = 4000
"""Of a tag's value: MLflow refuses more than 5,000."""


def origin_tags(model: Artifact, results: Artifact, decision: GateDecision) -> dict[str, str]:
    """The tags of a version of stage train's artifact, with these results."""
    recipe, judged = _recipe(model, model.keys), _recipe(results, results.keys)
    config = recipe.config if recipe else {}
    facts = {
        "source": _source(model, recipe),
        "num_pairs": model.manifest.summary.get("num_pairs"),
        "method": _part(config.get("settings"), "method"),
        "policy": config.get("policy"),
        "judge": _part(judged.config.get("judge") if judged else None, "kind"),
        "num_judged": results.manifest.summary.get("num_judged"),
        "reasons": "; ".join(_reason(check) for check in decision.checks if not check.passed),
        "note": decision.note,
    }
    return tags_of_facts(facts)


def tags_of_facts(facts: Mapping[str, object]) -> dict[str, str]:
    """The tags of facts by their names in `ORIGIN_TAGS`; what is missing or empty has none."""
    return {
        ORIGIN_TAGS[name]: str(value)[:MAX_CHARACTERS]
        for name, value in facts.items()
        if value not in (None, "")
    }


def _source(model: Artifact, recipe: Recipe | None) -> object:
    """Name of the source of the prompts of the pairs."""
    pairs = None if recipe is None else recipe.inputs.get("pairs")
    made = None if pairs is None else _recipe(model, ArtifactKeys(PAIR.name, pairs))
    prompts = None if made is None else made.inputs.get("prompts")
    if prompts is None:
        return None
    read = _recipe(model, ArtifactKeys(INGEST.name, prompts))
    return None if read is None else read.config.get("source_name")


def _reason(check: Check) -> str:
    value = "missing" if check.value is None else f"{check.value:.4f}"
    return f"{check.name} is {value}, its bound is {check.bound:g}"


def _recipe(artifact: Artifact, keys: ArtifactKeys) -> Recipe | None:
    return read_document(artifact.store, keys.recipe, Recipe)


def _part(tree: object, name: str) -> object:
    return tree.get(name) if isinstance(tree, Mapping) else None
