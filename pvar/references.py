"""References to models, data and folders: typed strings, found anywhere in a configuration.

A reference is a string that names an external model, data set or folder: `org/name@main`,
`s3://bucket/key`. A pinned reference is `location#digest`: the location is where to fetch it, the
digest identifies the content, and only the digest is hashed. Code that pins, fetches or traces
references uses `find_references`, which walks the types of a configuration, so that no list of
fields is needed.
"""

import re
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field

from pvar.errors import ConfigError

ReferenceKind = Literal["model", "data", "file", "folder"]


@dataclass(frozen=True)
class ReferenceMark:
    """Marks a field type whose strings are references of this kind."""

    kind: ReferenceKind


ModelReference = Annotated[str, Field(min_length=1, max_length=1000), ReferenceMark("model")]
"""A reference to a model; the forms are listed in `pvar/config.py`."""

DataReference = Annotated[str, Field(min_length=1), ReferenceMark("data")]
"""A JSONL, Parquet or CSV file (path or s3://), `hub:org/name[:split]`,
`hub:org/name:config:split` (each also with @revision), or `bundled:name`."""

FileReference = Annotated[str, Field(min_length=1, max_length=1000), ReferenceMark("file")]
"""A file that is read as a whole: a path or s3:// address."""

FolderReference = Annotated[str, Field(min_length=1, max_length=1000), ReferenceMark("folder")]
"""A local folder of files that are used as they were when the reference was pinned."""


CHAMPION = "champion"
"""Reference of the promoted model, or of the starting policy if none is promoted."""

_DIGEST = re.compile(r"(sha256|s3|mlflow)-[0-9a-f]{24}|[a-z]+/[0-9a-f]{16}")
"""Digests of content, of S3 objects, of a foreign registered model, and of an artifact."""


def is_pinned(reference: str) -> bool:
    """Whether a reference ends with a digest. Other text after a `#` is part of the name."""
    location, separator, digest = reference.rpartition("#")
    if not separator or not location:
        return False
    # A commit in the Hub is its own digest, the version of a package that of a bundled model.
    return bool(_DIGEST.fullmatch(digest)) or digest == location or location.startswith("bundled:")


class Pinned(NamedTuple):
    """A pinned model or data reference, whose content is fixed for the run."""

    location: str
    digest: str

    @classmethod
    def parse(cls, reference: str) -> "Pinned":
        """Split `location#digest`; ConfigError if it has no digest."""
        location, separator, digest = reference.rpartition("#")
        if not separator:
            raise ConfigError(f"{reference!r} is not pinned; append #digest")
        return cls(location, digest)


def file_name_of(reference: str) -> str:
    """The last part of a pinned reference's location; ConfigError if it is not pinned."""
    return Pinned.parse(reference).location.rstrip("/").rpartition("/")[2]


class Reference(NamedTuple):
    """A reference in a configuration."""

    path: str
    """Dotted path of field names and element indices: `score.reward_models.0.model`."""
    kind: ReferenceKind
    text: str

    @property
    def field(self) -> str:
        """Name of its field."""
        return next(part for part in reversed(self.path.split(".")) if not part.isdigit())


Settings = TypeVar("Settings", bound=BaseModel)


def find_references(settings: BaseModel) -> list[Reference]:
    """All references in a configuration, in the order of its fields."""
    found: list[Reference] = []

    def note(reference: Reference) -> str:
        found.append(reference)
        return reference.text

    replace_references(settings, note)
    return found


def replace_references(settings: Settings, change: Callable[[Reference], str]) -> Settings:
    """The configuration with each reference replaced, without validation."""
    return _Walk(change).model(settings, "")


def without_locations(settings: Settings) -> Settings:
    """The configuration with each pinned reference reduced to its digest."""
    return replace_references(settings, lambda reference: Pinned.parse(reference.text).digest)


def kind_of_field(model: type[BaseModel], name: str) -> ReferenceKind | None:
    """The kind of the references in a field; None if it has no references."""
    field = model.model_fields[name]
    return _kind(field.annotation, field.metadata)


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> ReferenceKind | None:
    for mark in metadata:
        if isinstance(mark, ReferenceMark):
            return mark.kind
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType, tuple):
        kinds = (_kind(argument) for argument in arguments if argument is not Ellipsis)
        return next((kind for kind in kinds if kind is not None), None)
    return None


class _Walk:
    def __init__(self, change: Callable[[Reference], str]) -> None:
        self._change = change

    def model(self, settings: Settings, path: str) -> Settings:
        update: dict[str, object] = {}
        for name in type(settings).model_fields:
            before = getattr(settings, name)
            kind = kind_of_field(type(settings), name)
            after = self._value(before, kind, f"{path}.{name}".removeprefix("."))
            if after is not before:
                update[name] = after
        return settings.model_copy(update=update) if update else settings

    def _value(self, value: object, kind: ReferenceKind | None, path: str) -> object:
        if isinstance(value, BaseModel):
            return self.model(value, path)
        if isinstance(value, tuple):
            after = tuple(
                self._value(each, kind, f"{path}.{row}") for row, each in enumerate(value)
            )
            is_same = all(new is old for new, old in zip(after, value, strict=True))
            return value if is_same else after
        if isinstance(value, str) and kind is not None:
            return self._change(Reference(path, kind, value))
        return value
