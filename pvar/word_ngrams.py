"""Words of a text for comparisons, and their n-grams.

Case and punctuation are ignored. Each Chinese, Japanese or Korean character counts as a word,
because these scripts have no spaces.
"""

import re
from collections.abc import Iterator

from pvar.dedup import normalise

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")

Words = tuple[str, ...]


def words_of(text: str) -> Words:
    """The words of a text, normalised."""
    return tuple(_WORD.findall(normalise(text)))


def word_ngrams(words: Words, size: int) -> Iterator[Words]:
    """All runs of `size` words; none if there are fewer words."""
    return (words[start : start + size] for start in range(len(words) - size + 1))
