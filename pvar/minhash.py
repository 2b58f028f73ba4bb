"""Search for similar sets: MinHash proposes candidates, and Jaccard similarity decides.

MinHash with locality-sensitive hashing (datasketch; Broder 1997) finds most sets whose Jaccard
similarity to a given set is at least a threshold, without comparing all of them. Its proposals are
to be checked with `jaccard`: so hashing can miss a similar set, but never adds another one.
"""

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH

NUM_PERMUTATIONS = 128
GRAMS_AT_ONCE = 1 << 13
"""datasketch takes about 1 kB for each: 1.1 GiB for a text of 1 MB."""
MAX_INDEX_THRESHOLD = 0.95  # above it the index would be left with too few bands


def jaccard(first: AbstractSet[str], second: AbstractSet[str]) -> float:
    """|A ∩ B| / |A ∪ B| of two sets that are not both empty."""
    return len(first & second) / len(first | second)


def new_sketcher() -> "Callable[[Iterable[str]], MinHash]":
    """A function from sets to their sketches, which `new_index` stores and searches."""
    from datasketch import MinHash

    empty = MinHash(num_perm=NUM_PERMUTATIONS, seed=1)

    def sketch(grams: Iterable[str]) -> MinHash:
        made = empty.copy()
        remaining = iter(grams)
        while part := [gram.encode() for gram in islice(remaining, GRAMS_AT_ONCE)]:
            made.update_batch(part)
        return made

    return sketch


def new_index(min_similarity: float) -> "MinHashLSH":
    """An empty index for sets of at least this similarity.

    Each proposal is checked, so bands are chosen for few misses (13 % at a similarity of 0.8
    exactly, 3 % at 0.85) and not, as by default, for few false proposals as well (60 % missed).
    """
    from datasketch import MinHashLSH

    return MinHashLSH(
        threshold=min(min_similarity, MAX_INDEX_THRESHOLD),
        num_perm=NUM_PERMUTATIONS,
        weights=(0.1, 0.9),
    )
