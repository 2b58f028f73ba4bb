"""The hashed part of a configuration: the settings that differ from their recorded baseline.

A baseline is the default that a field had when it was introduced (`pvar/baselines.py`). So a new
option changes no digest, and a changed default changes only the digests of configurations that
relied on it. For a pinned reference only the digest is hashed. Fields that are excluded from
serialisation are not hashed.

Different settings have different identities: an omitted field has one known value, a model's type
follows from its tag (a field with one possible value, such as `kind`), and tags are never omitted.
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
            return [_encoded(element, is_reference=is_reference) for element in value]
        case str():
            return Pinned.parse(value).digest if is_reference else value
        case None | bool() | int() | float():
            return value
        case _:
            raise TypeError(f"{value!r} is a {type(value).__name__}, which has no stable hash")
