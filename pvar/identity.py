"""What of a configuration is hashed: the settings that differ from their recorded baseline.

A baseline is the default that a field had when it was introduced (`pvar/baselines.py`). So a new
option changes no digest, and a default that is changed later changes the digests of those who
relied on it and of nobody else. Of a pinned reference only the digest is identity, and a field that
is excluded from serialisation is none.

Different settings have different identities: what is left out has one known value, a model's type
follows from its tag (a field with one possible value, such as `kind`), and tags are never left out.
"""

from typing import Literal, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from pvar.baselines import BASELINES
from pvar.references import Pinned, kind_of_field


def identity(settings: BaseModel) -> dict[str, JsonValue]:
    """The part of the settings that is hashed, as JSON."""
    model = type(settings)
    baselines = BASELINES.get(model.__name__, {})
    found: dict[str, JsonValue] = {}
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        is_reference = kind_of_field(model, name) is not None
        value = _encoded(getattr(settings, name), is_reference=is_reference)
        if is_tag(field) or name not in baselines or value != baselines[name]:
            found[name] = value
    return found


def is_tag(field: FieldInfo) -> bool:
    """Whether the field has one possible value, which names the type of its model."""
    return get_origin(field.annotation) is Literal and len(field.annotation.__args__) == 1  # type: ignore[union-attr]


def _encoded(value: object, *, is_reference: bool) -> JsonValue:
    match value:
        case BaseModel():
            return identity(value)
        case tuple():
            return [_encoded(each, is_reference=is_reference) for each in value]
        case str():
            return Pinned.parse(value).digest if is_reference else value
        case None | bool() | int() | float():
            return value
        case _:
            raise TypeError(f"{value!r} is a {type(value).__name__}: it has no stable hash")
