"""Writes `docs/reference/`: every command and every key of the configuration, from the code.

    make reference

cyclopts renders the commands. The renderer of the configuration is ours: tools for JSON schema
(jsonschema-markdown, jsonschema2md) list classes by name, without the dotted path that `--set` and
YAML take, and show a nested default as one line of JSON. A default here is the one at its path:
`evaluate.answers.temperature` and `sample.temperature` share a class and differ.

The pages depend on the code alone: not on the terminal, the environment or the clock.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.cli import make_app
from flows.exit_codes import MEANINGS
from pvar.config import PipelineConfig
from pvar.retrain_decision import RetrainConfig
from pvar.round_rules import RoundsConfig
from pvar.study_config import StudyConfig

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `make reference` from the code. Change the code instead of this page. -->"
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "≥ {} characters",
    "maxLength": "≤ {} characters",
    "minItems": "≥ {} elements",
    "pattern": "matches `{}`",
}
NOT_BELOW = {"PipelineConfig": "[the pipeline's keys](#pipeline)", "JsonValue": "any value"}
"""Definitions without a section of their own, and how they are named."""
TYPES = {
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
}
"""JSON's types in words."""

Schema = Mapping[str, Any]
REQUIRED = "required"


def pages() -> dict[str, str]:
    """Content of each page by its file name."""
    return {"commands.md": commands(), "configuration.md": configuration()}


def commands() -> str:
    """Every command with its whole docstring, arguments and options."""
    text = make_app(with_summaries=False).generate_docs().replace("# pvar\n", "# Commands\n", 1)
    text = text.replace("](#pvar-install-completion)", "](#pvar---install-completion)")  # GitHub's
    text = text.replace(" *[default: ()]*", "")  # an option that may be repeated, and need not
    text = re.sub(r"\*\[default: \('(\w+)',\)\]\*", r"*[default: \1]*", text)
    text = text.replace("## Table of Contents", f"{_exit_codes()}\n## Table of Contents", 1)
    return f"{NOTE}\n\n{text.rstrip()}\n"


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in MEANINGS.items()]
    head = ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    return "\n".join([*head, *rows, "| 130 | ended by Ctrl-C |", ""])


def configuration() -> str:
    """Every key with its dotted path, type, default, bounds and meaning."""
    lines = [
        NOTE,
        "",
        "# Configuration",
        "",
        "A preset (YAML) and `--set key=value` take the keys of the pipeline by these paths. In a",
        "path, `[]` is an element of a list and `*` any of the names of the table above.",
        "",
        "- [Pipeline](#pipeline): `pvar run`, `pvar stage`, `pvar compare`, deployment `pipeline`",
        "- [Retraining](#retraining): `--rule key=value` of `pvar retrain`, deployment `retrain`",
        "- [Rounds](#rounds): `pvar rounds`, deployment `rounds`",
        "- [Study](#study): `pvar compare`, deployment `compare`",
        "",
    ]
    for title, tree in (
        ("Pipeline", PipelineConfig),
        ("Retraining", RetrainConfig),
        ("Rounds", RoundsConfig),
        ("Study", StudyConfig),
    ):
        schema = tree.model_json_schema()
        lines += [f"## {title}", "", _one_line(schema["description"]), ""]
        lines += _Tree(schema["$defs"]).table(schema, "", None)
    return "\n".join(lines).rstrip() + "\n"


class _Tree:
    """Renders one configuration; a pipeline inside another one is a link."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def table(self, schema: Schema, path: str, defaults: Any) -> Iterator[str]:
        """The keys of one model, and then a section for each model below it."""
        yield "| key | type | default | bounds | meaning |"
        yield "|---|---|---|---|---|"
        below: list[tuple[str, Schema, Any]] = []
        for name, field in schema["properties"].items():
            at = f"{path}.{name}".removeprefix(".")
            default = field.get("default", REQUIRED)
            if isinstance(defaults, dict):
                default = defaults.get(name, REQUIRED)
            models = self._models(field)
            if models:
                below.append((at, field, default))
            meaning = field.get("description") or (models and models[0].get("description")) or ""
            cells = (self._type(field), self._default(models, default), self._bounds(field))
            yield _row(f"`{at}`", *cells, _one_line(meaning))
        yield ""
        if len({json.dumps(each[1:], sort_keys=True) for each in below}) == 1 < len(below):
            below = [(f"{path}.*", *below[0][1:])]  # one section for all stages' placements
        for at, field, default in below:
            yield from self._section(at, field, default)

    def _section(self, path: str, field: Schema, default: Any) -> Iterator[str]:
        is_list = any(option.get("type") == "array" for option in _options(field))
        path = f"{path}[]" if is_list else path
        models = self._models(field)
        for model in models:
            kind = model["properties"].get("kind", {}).get("const")
            is_default = isinstance(default, dict) and default.get("kind") in (None, kind)
            yield f"### `{path}`" + (f", kind `{kind}`" if len(models) > 1 else "")
            yield ""
            yield _one_line(model.get("description", ""))
            yield ""
            yield from self.table(model, path, default if is_default else None)

    def _models(self, field: Schema) -> list[Schema]:
        """The models that a field may hold, but for those without a section here."""
        names = [
            option["$ref"].rpartition("/")[2] for option in _options(field) if "$ref" in option
        ]
        return [self._definitions[name] for name in names if name not in NOT_BELOW]

    def _type(self, field: Schema) -> str:
        options = [self._type_of(option) for option in _alternatives(field)]
        return " or ".join(dict.fromkeys(options))

    def _type_of(self, option: Schema) -> str:
        if "$ref" in option:
            name = option["$ref"].rpartition("/")[2]
            if name in NOT_BELOW:
                return NOT_BELOW[name]
            kind = self._definitions[name]["properties"].get("kind", {}).get("const")
            return f"kind `{kind}`" if kind else "keys below"
        if option.get("type") == "array":
            return f"list of {self._type(option['items'])}"
        if "const" in option or "enum" in option:
            return ", ".join(f"`{each}`" for each in option.get("enum", [option.get("const")]))
        return TYPES.get(option["type"], str(option["type"]))

    def _default(self, models: list[Schema], default: Any) -> str:
        if isinstance(default, dict) and default:
            there = "below" if models else "above"  # a whole pipeline has its own part of the page
            return f"kind `{default['kind']}`" if len(models) > 1 else there
        if default is REQUIRED:
            return "**required**"
        return f"`{_json(default)}`"

    def _bounds(self, field: Schema) -> str:
        return ", ".join(
            text.format(_json(option[bound]) if bound != "pattern" else option[bound])
            for option in _options(field)
            for bound, text in BOUNDS.items()
            if bound in option
        )


def _alternatives(field: Schema) -> list[Schema]:
    return list(field.get("anyOf") or field.get("oneOf") or [field])


def _options(field: Schema) -> Iterator[Schema]:
    """The field's alternatives and, of lists, those of their elements."""
    for option in _alternatives(field):
        yield option
        if option.get("type") == "array":
            yield from _options(option["items"])


def _json(value: Any) -> str:
    """JSON in which 4 and 4.0 are one number, as pydantic writes now the one, now the other."""
    match value:
        case float() if value.is_integer():
            return str(int(value))
        case dict():
            return "{" + ", ".join(f'"{key}": {_json(each)}' for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
