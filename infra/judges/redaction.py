"""Remove from a server's message what must not be in an error or a log.

    the key, also half hidden by asterisks, and anything that looks like a key
    addresses: every URL, and the host and path of the judge's server
    the texts of the question: every run of letters and digits that the message shares with them

Two texts share a run if it has `RUN` letters or digits in both, whatever stands between these
(spaces, quotes, escaped line breaks); a shorter text is removed where it stands as a whole.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

REMOVED = "[…]"

RUN = 12
"""Shared letters and digits in a row that are a quotation. Characters outside of ASCII (Chinese,
for example) count as three."""

_SHORTEST = 3
"""Letters and digits of the shortest text that is removed."""

_READ = 4000
"""Characters of a message that are read; a server may repeat the whole request."""

_HIDDEN = re.compile(
    r"https?://\S+"
    r"|\b[Bb]earer\s+\S+"
    r"|\b(?:sk|pk|key|tok|hf|gsk|xai)[-_][\w*.-]{6,}"
    r"|[\w.-]*\*{3,}[\w*.-]*"
)
_TAG = re.compile(r"<(?:script|style).*?</(?:script|style)>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def redact(message: str, *, key: str, base_url: str, texts: Iterable[str], length: int) -> str:
    """The message as one line of at most `length` characters, without key, address and texts."""
    plain = message[:_READ]
    if "<html" in plain.lower():
        plain = _TAG.sub(" ", plain)
    address = urlsplit(base_url)
    path = address.path.rstrip("/").removesuffix("/v1").rstrip("/")
    for secret in (key, address.netloc, address.hostname, path):
        if secret and len(secret) > 2:
            plain = re.sub(re.escape(secret), REMOVED, plain, flags=re.IGNORECASE)
    plain = _HIDDEN.sub(REMOVED, plain)
    plain = _without_texts(plain, texts)
    if len(message) > _READ:  # the last run may have been cut, and so be too short to be seen
        plain = plain[: -2 * RUN]
    printable = "".join(each if each.isprintable() else " " for each in plain)
    line = " ".join(re.sub(rf"(?:{re.escape(REMOVED)}\s*)+", f"{REMOVED} ", printable).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _without_texts(message: str, texts: Iterable[str]) -> str:
    where = [position for position, each in enumerate(message) if each.isalnum()]
    letters = _letters(message)
    covered = [False] * len(letters)
    for text in texts:
        wanted = _letters(text)
        if len(wanted) < _SHORTEST:
            continue
        for start, end in _shared(letters, wanted):
            if (
                end - start >= RUN
                or end - start < len(wanted)
                or _is_whole(message, where, start, end)
            ):
                covered[start:end] = [True] * (end - start)
    return _cut(message, where, covered)


def _letters(text: str) -> str:
    """Letters and digits, in lower case where that is one character."""
    folded = (each.casefold() if len(each.casefold()) == 1 else each for each in text)
    return "".join(each for each in folded if each.isalnum())


def _shared(letters: str, wanted: str) -> Iterator[tuple[int, int]]:
    """Start and end of the runs in `letters` that are also in `wanted`, or are all of it."""
    start = 0
    while start < len(letters):
        end, weight = start, 0
        while end < len(letters) and letters[start : end + 1] in wanted:
            weight += 1 if letters[end].isascii() else 3
            end += 1
        if weight >= RUN or end - start == len(wanted):
            yield start, end
            start = end
        else:
            start += 1


def _is_whole(message: str, where: Sequence[int], start: int, end: int) -> bool:
    """Whether the run is not a part of a longer word: the text "temper" is not in "temperature"."""
    before, after = where[start] - 1, where[end - 1] + 1
    return not (
        (before >= 0 and _in_word(message[before]))
        or (after < len(message) and _in_word(message[after]))
    )


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _cut(message: str, where: Sequence[int], covered: Sequence[bool]) -> str:
    """The message with each covered run, and what is between its letters, replaced."""
    parts: list[str] = []
    end = 0
    for number, (position, is_covered) in enumerate(zip(where, covered, strict=True)):
        if not is_covered:
            continue
        if not (number and covered[number - 1]):
            parts += [message[end:position], REMOVED]
        end = position + 1
    return "".join([*parts, message[end:]])
