"""Stable hashes of values and texts: the identity of artifacts, prompts and responses.

A digest must be the same on every machine and in every Python process. So only values with one
canonical JSON form are accepted; anything else (a path, a set, a NaN) raises TypeError.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from pvar.records import Message

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


def canonical_json(value: Json) -> str:
    """JSON with sorted keys and no spaces; raises TypeError for what has no stable form."""
    _refuse_unstable(value, "value")
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Json, *, length: int = 16) -> str:
    """First `length` hex digits of the SHA-256 of the value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def prompt_id(messages: Sequence[Message]) -> str:
    """Id of a prompt: a hash of its roles and contents, as they are."""
    return digest([[message.role, message.content] for message in messages])


def response_id(prompt: str, index: int, text: str) -> str:
    """Id of a response within its prompt."""
    return digest([prompt, index, text])


def _refuse_unstable(value: Json, where: str) -> None:
    match value:
        case None | bool() | int() | str():
            return
        case float():
            if not math.isfinite(value):
                raise TypeError(f"{where} is {value}; it must be finite to have a stable hash")
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"{where} has the key {key!r}; only strings hash stably")
                _refuse_unstable(item, f"{where}.{key}")
        case list() | tuple():
            for position, item in enumerate(value):
                _refuse_unstable(item, f"{where}[{position}]")
        case _:
            raise TypeError(f"{where} is a {type(value).__name__}, which has no stable hash")
