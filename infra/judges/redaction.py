"""Remove from a server's message what must not be in an error or a log.

    the key, also half hidden by asterisks, and anything that looks like a key
    addresses: every URL, and the host and path of the judge's server
    the texts of the question: every run of letters and digits that the message shares with them

What stands between the letters of a run (spaces, quotes, escaped line breaks) is not compared. A
text that is shorter than a run is removed where it stands as a whole.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

REMOVED = "[…]"

RUN = 12
"""Shared letters and digits in a row that are a quotation."""

SHORT_RUN = 4
"""The same for letters outside of ASCII, of which some writings (Chinese) need fewer."""

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
_REPEATED = re.compile(rf"{re.escape(REMOVED)}\s*(?={re.escape(REMOVED)})")
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
    plain = _without_texts(plain, texts, is_cut=len(message) > _READ)
    printable = "".join(each if each.isprintable() else " " for each in plain)
    line = " ".join(_REPEATED.sub("", printable).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _without_texts(message: str, texts: Iterable[str], *, is_cut: bool) -> str:
    where = [position for position, each in enumerate(message) if each.isalnum()]
    letters = _letters(message)
    covered = [False] * len(letters)
    for wanted in map(_letters, texts):
        runs = list(_shared(letters, wanted))
        if _SHORTEST <= len(wanted) < RUN:
            whole = _occurrences(wanted, letters)
            runs += [run for run in whole if _is_whole(message, where, *run)]
        for start, end in runs:
            covered[start:end] = [True] * (end - start)
    if is_cut:  # the last run may have become too short to be seen
        covered[-2 * RUN :] = [True] * min(2 * RUN, len(covered))
    return _cut(message, where, covered)


def _letters(text: str) -> str:
    """Letters and digits, in lower case where that is one character."""
    letters = (each for each in text if each.isalnum())
    return "".join(each.casefold() if len(each.casefold()) == 1 else each for each in letters)


def _occurrences(wanted: str, letters: str) -> Iterator[tuple[int, int]]:
    start = letters.find(wanted)
    while start >= 0:
        yield start, start + len(wanted)
        start = letters.find(wanted, start + 1)


def _shared(letters: str, wanted: str) -> Iterator[tuple[int, int]]:
    """Start and end of the runs in `letters` that are also in `wanted`; they may overlap."""
    for size, is_run in ((RUN, str.isalnum), (SHORT_RUN, _is_foreign)):
        known = {wanted[start : start + size] for start in range(len(wanted) - size + 1)}
        for start in range(len(letters) - size + 1):
            run = letters[start : start + size]
            if run in known and is_run(run):
                yield start, start + size


def _is_foreign(run: str) -> bool:
    return not any(each.isascii() for each in run)


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
