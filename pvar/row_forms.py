"""What a row says beside its text, and texts that are something else already.

Some fields change what a row means: tools that the model may call, pictures, documents, a weight,
the thought before an answer. This project trains on text, and on each row as much as on the others,
so a row with one of them is rejected by a rule that names the field. A weight of 1 changes nothing.
A system prompt in a column of its own is used.

A text that a chat template rendered, or a conversation written as JSON, is not what a user said:
the template would be applied to it a second time.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from pvar.records import Message

Fields = Mapping[str, object]

SYSTEM_FIELDS = ("system", "system_prompt")
"""Names of a column with the system message."""

_UNUSED = (
    "tools", "functions", "tool_calls", "function_call", "chat_template_kwargs",
    "image", "images", "audio", "audios", "video", "videos", "documents",
)  # fmt: skip
_UNUSED_IN_MESSAGES = (
    "tool_calls", "function_call", "image", "images", "audio", "video", "videos", "documents",
)  # fmt: skip
_WEIGHTS = ("weight", "sample_weight", "importance_weight")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Of an answer's message. Chat templates drop those of earlier turns."""
_ANSWERS = ("chosen", "rejected", "completion")
_TOOL_ROLES = ("tool", "function", "ipython")

_BEGINNING = r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|<｜begin▁of▁sentence｜>)?\s*"
_TURN = (
    r"(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|start_of_role\|>"
    r"|<\|START_OF_TURN_TOKEN\|>|<\|(?:user|system|assistant)\|>|<｜(?:User|Assistant)｜>|\[INST\])"
)
_END = (
    r"(?:<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|end\|>|<\|end_of_text\|>|<\|endoftext\|>"
    r"|<\|END_OF_TURN_TOKEN\|>|<｜end▁of▁sentence｜>|</s>|\[/INST\])\s*\Z"
)
_RENDERED = re.compile(rf"\A{_BEGINNING}{_TURN}|{_END}")
"""Begins with a turn, or ends with the end of one, of the templates in use."""
_CONVERSATION = re.compile(r"""\A\s*\[?\s*\{\s*["'](?:role|from|messages|conversations)["']\s*:""")


def unused_field(fields: Fields) -> str | None:
    """The rule for a row with a field that changes its meaning and cannot be used; None without."""
    for field in _UNUSED:
        if _is_given(fields.get(field)):
            return f"{field}_not_supported"
    if weight := _weight(fields):
        return f"{weight}_not_supported"
    for message in _messages_of(fields, ("prompt", "messages", *_ANSWERS)):
        for field in _UNUSED_IN_MESSAGES:
            if _is_given(message.get(field)):
                return f"{field}_not_supported"
        if message.get("role") in _TOOL_ROLES:
            return "tool_message_not_supported"
    for message in _answers_of(fields):
        thought = next((name for name in _THOUGHTS if _is_given(message.get(name))), None)
        if own := thought or _weight(message):
            return f"{own}_not_supported"
    return None


def _weight(fields: Fields) -> str | None:
    """The field with a weight other than 1."""
    for name in _WEIGHTS:
        weight = fields.get(name)
        is_missing = isinstance(weight, float) and math.isnan(weight)
        if _is_given(weight) and not is_missing and weight not in (1, "1"):
            return name
    return None


def _answers_of(fields: Fields) -> Iterator[Fields]:
    """The last message of each answer; those before it are turns that it repeats."""
    for field in _ANSWERS:
        *_, last = (None, *_messages_of(fields, (field,)))
        if last is not None:
            yield last


def text_of_content(content: object) -> str | None:
    """A message's text: itself, or that of its only part; None for anything else."""
    if isinstance(content, str):
        return content
    match content:
        case [{"type": "text", "text": str(text)}]:
            return text
    return None


def content_rule(content: object) -> str:
    """The rule for a content without a text: it names the kind of the part that is not text."""
    if isinstance(content, Sequence) and not isinstance(content, str):
        kinds = [part.get("type") for part in content if isinstance(part, Mapping)]
        for kind in kinds:
            if isinstance(kind, str) and kind.isidentifier() and kind != "text":
                return f"{kind}_not_supported"
        if len(content) > 1:
            return "message_of_several_parts"
    return "message_without_text"


def with_system(fields: Fields, messages: tuple[Message, ...]) -> tuple[Message, ...] | str:
    """The messages after the row's own system message, if it has one; or why that cannot be."""
    given = [fields.get(field) for field in SYSTEM_FIELDS]
    texts = {value.strip(): value for value in given if isinstance(value, str) and value.strip()}
    if any(_is_given(value) and not isinstance(value, str) for value in given):
        return "system_not_text"
    if not texts:
        return messages
    first = messages[0]
    own = {first.content.strip()} if first.role == "system" else set()
    if len(texts.keys() | own) > 1:
        return "two_system_messages"
    return messages if own else (Message("system", *texts.values()), *messages)


def text_rule(text: str) -> str | None:
    """The rule for a text that is something else already; None for what a person may write."""
    if _RENDERED.search(text):
        return "rendered_by_template"
    return "conversation_as_text" if _CONVERSATION.match(text) else None


def _is_given(value: object) -> bool:
    """Whether there is something: neither null nor empty, as columns without a value are."""
    if isinstance(value, Mapping):  # a struct of nulls
        return any(map(_is_given, value.values()))
    return value is not None and value not in ("", [], ())


def _messages_of(fields: Fields, names: Sequence[str]) -> Iterator[Fields]:
    for field in names:
        value = fields.get(field)
        if isinstance(value, Sequence) and not isinstance(value, str):
            yield from (message for message in value if isinstance(message, Mapping))
