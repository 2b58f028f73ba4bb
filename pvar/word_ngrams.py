"""Words of a text for comparisons, and their n-grams.

Case and punctuation are ignored. Each Chinese, Japanese or Korean character counts as a word,
because these scripts have no spaces.
"""

import re
from collections.abc import Iterator
from itertools import islice

from pvar.normalised_text import normalise

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")

Words = tuple[str, ...]


def words_of(text: str) -> Words:
    """The words of a text, normalised."""
    return tuple(_WORD.findall(normalise(text)))


def has_words(text: str, count: int) -> bool:
    """Whether a normalised text has at least so many words."""
    return sum(1 for _ in islice(_WORD.finditer(text), count)) == count


def word_ngrams(words: Words, size: int) -> Iterator[Words]:
    """All runs of `size` words; none if there are fewer words."""
    return (words[start : start + size] for start in range(len(words) - size + 1))
