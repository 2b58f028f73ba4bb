"""Separate what a model thinks from what it answers. Only the answer is judged or read.

Servers return the thought in a field of its own (`reasoning_content`, `reasoning`), as a part of
the content (type `thinking` or `reasoning`), or in the text: <think>…</think> at its beginning. The
opening tag is missing if the chat template ends the prompt with it, the closing one if the reply
was truncated.
"""

import re
from typing import NamedTuple

_BLOCK = re.compile(r"\s*<(think|thinking)>.*?(</\1>|\Z)", re.DOTALL)
_CLOSING = re.compile(r"</(?:think|thinking)>")
_OPENING = re.compile(r"<(?:think|thinking)>")


class Spoken(NamedTuple):
    """A reply without its thought."""

    text: str
    thought: bool
    """Whether there was any thought."""


def without_thought(text: str) -> Spoken:
    """The answer in a reply's text. Tags that the answer quotes later are left alone."""
    answer = text
    while block := _BLOCK.match(answer):
        answer = answer[block.end() :]
    closing = _CLOSING.search(answer)
    if closing and not _OPENING.search(answer, 0, closing.start()):
        answer = answer[closing.end() :]
    return Spoken(answer.lstrip(), True) if answer != text else Spoken(text, False)


def spoken(content: object) -> Spoken:
    """The answer in a message's content: a text, or a list of parts (texts, thoughts, others)."""
    match content:
        case str():
            return without_thought(content)
        case list():
            parts = [_part(part) for part in content]
            joined = without_thought("".join(part.text for part in parts))
            return Spoken(joined.text, joined.thought or any(part.thought for part in parts))
        case _:
            return Spoken("", False)


def _part(part: object) -> Spoken:
    match part:
        case str():
            return Spoken(part, False)
        case {"type": "text" | "output_text", "text": str(text)}:
            return Spoken(text, False)
        case {"type": "thinking" | "reasoning" | "redacted_thinking"}:
            return Spoken("", True)
        case _:  # a picture, a tool's call: nothing to read
            return Spoken("", False)
