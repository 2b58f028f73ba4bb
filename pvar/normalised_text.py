"""Texts as they are compared: without differences that say nothing."""

import re
import unicodedata

_AT_ENDS = re.compile(r"(?<!\S)[\"'“”‘’«»]+|[.,;:!?…。、\"'“”‘’«»]+(?!\S)")


def normalise(text: str) -> str:
    """Unicode NFKC, case folding, runs of white space replaced by one space, ends stripped."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def plain(text: str) -> str:
    """Without punctuation at the ends of words; that within them has a meaning: 2+2, -5, f(x)."""
    return normalise(_AT_ENDS.sub("", normalise(text)))
