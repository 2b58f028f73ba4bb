"""Turn pydantic's validation errors into messages: key, fault, value, what to do."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

NOT_KEYS = ("model_type", "model_attributes_type")
"""Pydantic's error types for a single value where keys and values are expected."""


def describe_faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line per fault, such as `select.stratgy: no such key (given: 'random'); did you mean …`.

    A fault of the whole configuration has no key.
    """
    return [_describe(fault, model) for fault in error.errors()]


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
    return f"{key}: {message}{given}" if key else f"{message}{given}"


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
