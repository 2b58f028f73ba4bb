"""The form of a deployment in Prefect's UI: few groups, what a person changes first on top.

Prefect draws a field for every property of a flow's schema, here 130 in one column. The schema is
arranged with what its forms know: properties are sorted by `position`, and of the alternatives of
`anyOf`, which are tabs, only the open one is drawn.

    Main settings | All settings    a stage of the run: a few of its settings, or all
    As deployed | Change            what is changed rarely: nothing, or all of its settings

The first tab is open. Only the open tab counts: a tab begins with the values of the deployment,
whatever was changed in another. What is valid is the same as without tabs: `if` and `then`, which
forms do not read, refer to the model, so that an error names the field.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import JsonValue

Tree = dict[str, Any]

PARAMETERS = ("models", "benchmarks", "node", "config", "preset", "parent_run")
"""Order of the parameters of flows."""

FIRST: dict[str, tuple[str, ...]] = {
    "IngestConfig": ("source", "eval_fraction"),
    "SampleConfig": ("engine", "num_responses", "max_new_tokens", "temperature"),
    "ScoreConfig": ("reward_models",),
    "SelectConfig": ("strategy", "budget"),
    "TrainConfig": ("method", "beta", "learning_rate", "num_epochs", "lora"),
    "EvaluateConfig": ("judge", "opponent", "prompts"),
    "PromoteConfig": ("model_name", "mode", "min_win_rate", "max_ability_loss"),
}
"""Model → the settings that a person changes first, in this order."""

ORDER: dict[str, tuple[str, ...]] = {
    "PipelineConfig": (
        "policy", "ingest", "sample", "score", "select", "train", "evaluate", "promote",
        "policy_if_none", "pair", "annotate", "benchmarks", "benchmark_models", "label_audit",
        "reward_training", "runtime",
    ),
    "RetrainConfig": ("min_new_pairs", "max_days_between_runs", "incoming", "pipeline"),
    "RoundsConfig": ("rounds", "batches", "name", "pipeline"),
    "StudyConfig": (
        "question", "arms", "control", "seeds", "pipeline", "sweep", "held_equal", "endpoints",
    ),
    "EvaluateConfig": (), "RuntimeConfig": (),
}  # fmt: skip
"""Model whose groups have tabs → its first properties, in this order; others follow."""

BOUNDS = (
    "$ref", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "minLength",
    "maxLength", "minItems", "maxItems", "required", "additionalProperties", "discriminator",
)  # fmt: skip
"""What the main settings leave to `then`."""
VERBATIM = ("default", "enum", "const", "title", "description", "examples")

ONLY_THE_OPEN = "Only the open tab counts."


def arrange_form(
    schema: Mapping[str, Any], parameters: Mapping[str, JsonValue], opened: set[str] | None = None
) -> Tree:
    """The schema with groups. `parameters` are the deployment's; `opened` has the fields of the
    pipeline's configuration that open with their main settings (None: all that have some)."""
    form: Tree = deepcopy(dict(schema))
    _sort(form["properties"], PARAMETERS)
    for definition in form.get("definitions", {}).values():
        for name, details in definition.get("properties", {}).items():
            _entitle(name, details)
    config = parameters.get("config")
    if isinstance(config, dict):
        name = _referred(form["properties"].get("config", {}))
        if name is not None:
            _arrange(name, config, form["definitions"], opened)
    return form


def _arrange(model: str, value: Tree, definitions: Tree, opened: set[str] | None) -> None:
    """Sort the properties of a model, and give tabs to those that are models themselves."""
    if model not in ORDER:
        return
    properties = definitions[model]["properties"]
    _sort(properties, ORDER[model])
    for name, details in properties.items():
        referred = _referred(details)
        if referred is None or not isinstance(value.get(name), dict):
            continue
        if "properties" not in definitions[referred]:
            continue
        is_open = opened is None or name in opened
        first = FIRST.get(referred, ()) if is_open else ()
        properties[name] = _tabs(name, details, value[name], definitions, first)
        _arrange(referred, value[name], definitions, opened)


def _entitle(name: str, details: Tree) -> None:
    """Name what the form would name `Field`: a group that may be missing."""
    if any("$ref" in each for each in details.get("anyOf", ())):
        details.setdefault("title", _title(name))
        for each in details["anyOf"]:
            each.setdefault("title", "None" if each.get("type") == "null" else "Set")


def _tabs(name: str, details: Tree, value: Tree, definitions: Tree, first: tuple[str, ...]) -> Tree:
    """A group of settings as two tabs."""
    reference = {"$ref": details["$ref"]}
    definition = definitions[reference["$ref"].rpartition("/")[2]]
    said = details.get("description") or definition.get("description") or ""
    # A tab that is opened takes the defaults of its settings. With a default of its own, the form
    # would go back to the first tab.
    for setting, each in definition["properties"].items():
        each["default"] = value.get(setting, each.get("default"))
    # Without `properties` of its own, a tab is not taken for the one that the values are of.
    whole = {"type": "object", "allOf": [reference]}
    if first:
        main = {each: _loose(definition["properties"][each], definitions) for each in first}
        _sort(main, first)
        few = {"type": "object", "properties": main}
        tabs = [{"title": "Main settings", **few}, {"title": "All settings", **whole}]
    else:
        tabs = [
            {"title": "As deployed", "type": "object"},
            {"title": "Change", **whole},
        ]
    return {
        "if": {},  # its errors come first: with the reverse order, Prefect's list of errors fails
        "then": reference,
        "title": _title(name).upper(),  # a heading: the form draws no frame around tabs
        "description": f"{said} {ONLY_THE_OPEN}",
        "position": details.get("position", 0),
        "default": value,
        "anyOf": tabs,
    }


def _loose(schema: Any, definitions: Tree) -> Any:
    """A schema without references and bounds: `then` checks them, and names the setting."""
    if isinstance(schema, list):
        return [_loose(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {**definitions.get(_referred(schema) or "", {}), **schema}
    return {
        name: each if name in VERBATIM else _loose(each, definitions)
        for name, each in schema.items()
        if name not in BOUNDS
    }


def _sort(properties: Tree, first: tuple[str, ...]) -> None:
    names = [*first, *(name for name in properties if name not in first)]
    for position, name in enumerate(name for name in names if name in properties):
        properties[name]["position"] = position


def _referred(details: Mapping[str, Any]) -> str | None:
    """Name of the definition that a property is; None if it is not one alone."""
    reference = details.get("$ref")
    return None if reference is None else str(reference).rpartition("/")[2]


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()
