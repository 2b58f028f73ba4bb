"""Turn pydantic's validation errors into messages: key, fault, value, what to do."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

NOT_KEYS = ("model_type", "model_attributes_type")
"""Pydantic's error types for a single value where keys and values are expected."""

_CHOICES = {"literal_error": "expected", "enum": "expected", "union_tag_invalid": "expected_tags"}
"""Pydantic's error type → where it lists what may be given."""
_QUOTED = re.compile(r"'([^']*)'")


def describe_faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line per fault, such as `select.stratgy: no such key (given: 'random'); did you mean …`.

    A fault of the whole configuration has no key. A list that is too short because its elements are
    invalid is no fault of its own.
    """
    faults = error.errors()
    places = [fault["loc"] for fault in faults]
    return [
        _describe(fault, model)
        for fault in faults
        if fault["type"] != "too_short"
        or not any(place[: len(fault["loc"])] == fault["loc"] != place for place in places)
    ]


def _describe(fault: ErrorDetails, model: type[BaseModel]) -> str:
    given = "" if isinstance(fault["input"], Mapping) else f" (given: {fault['input']!r})"
    parents, models = _descend(fault["loc"][:-1], [model])
    key = ".".join([*parents, *map(str, fault["loc"][-1:])])
    if fault["type"] == "extra_forbidden":
        names = [name for model in models for name in model.model_fields]
        near = get_close_matches(str(fault["loc"][-1]), names, n=1)
        advice = f"; did you mean {'.'.join([*parents, *near])}?" if near else ""
        return f"{key}: there is no such key{given}{advice}"
    if fault["type"] in NOT_KEYS:
        _, models = _descend(fault["loc"], [model])
        target = "" if isinstance(fault["loc"][-1], int) else f"{key}="  # entries are not set alone
        return f"{key}: must hold keys and values{given}; write {target}{_form(models, fault)}"
    message = fault["msg"].removeprefix("Value error, ")
    allowed = _QUOTED.findall(str(fault.get("ctx", {}).get(_CHOICES.get(fault["type"], ""), "")))
    if fault["type"] == "union_tag_invalid":
        message, given = f"there is no kind {fault['ctx']['tag']!r}; it is {_either(allowed)}", ""
    elif fault["type"] == "union_tag_not_found":
        message = "the `kind` is missing; write {kind: …}"
    elif fault["type"] == "missing":
        message, given = "is required; set it", ""
    asked = fault["ctx"]["tag"] if fault["type"] == "union_tag_invalid" else fault["input"]
    if near := get_close_matches(str(asked), allowed, n=1):
        given += f"; did you mean {near[0]}?"
    return f"{key}: {message}{given}" if key else f"{message}{given}"


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _descend(
    location: Sequence[int | str], models: Sequence[type[BaseModel]]
) -> tuple[list[str], Sequence[type[BaseModel]]]:
    """The keys of a location without union tags, and the models that are valid there."""
    keys = []
    for part in location:
        fields = [model.model_fields[str(part)] for model in models if part in model.model_fields]
        if fields or isinstance(part, int):
            keys.append(str(part))
        models = [found for field in fields for found in _models_in(field.annotation)] or models
    return keys, models


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _form(models: Sequence[type[BaseModel]], fault: ErrorDetails) -> str:
    """An example of the expected keys and values, for the given kind if it is valid."""
    for model in models:
        kind = model.model_fields.get("kind")
        if kind is not None and fault["input"] in get_args(kind.annotation):
            needed = [name for name, field in model.model_fields.items() if field.is_required()]
            others = [f", {name}: …" for name in needed if name != "kind"]
            return f"{{kind: {fault['input']}{''.join(others)}}}"
    return f"{{{next(iter(models[0].model_fields))}: …}}"
