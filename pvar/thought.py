"""The answer of a reasoning model, without the thought that precedes it."""

import re

_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_START = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)


def without_thought(text: str) -> str:
    """What follows the last end of a thought; all of a text that has none.

    A text that begins with a thought and was cut off before its end has no answer: an empty text.
    """
    ends = list(_END.finditer(text))
    if ends:
        return text[ends[-1].end() :].lstrip()
    return "" if _START.match(text) else text
