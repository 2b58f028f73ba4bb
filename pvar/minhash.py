"""Search for similar sets: MinHash proposes candidates, and Jaccard similarity decides.

A sketch holds the smallest value of each of up to 128 hash functions over a set (Broder 1997). Two
sets of Jaccard similarity s agree in each value with probability s. The values are cut into b bands
of r, and sets that agree in a whole band are candidates: with probability 1 − (1 − s^r)^b. r is the
largest for which a set at the threshold is missed less often than `MAX_MISSED`: about never at the
usual thresholds, so the hash functions do not show in what is found. Proposals are checked with
`jaccard`, so hashing never adds a set that is not similar.

Sets are given as hashes of their elements: `ngram_hashes` of a text's characters, `text_hashes` of
texts. Axes: N sets, b bands, r values of a band.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Self

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

NUM_VALUES = 128
"""Values of a sketch, at most."""
MAX_MISSED = 1e-3
HASHES_AT_ONCE = 1 << 13
"""Each takes 4 bytes a value of the sketch."""
MAX_SETS_PER_BAND = 128
"""Sets that are kept with one value of a band. More have a common template; those that come later
and agree with another set in no other band are missed, and time stays in proportion to the sets."""
MAX_CANDIDATES = 8
"""Candidates that are checked: those that agree in the most bands."""

_RNG = np.random.default_rng(1)
_FACTORS = _RNG.integers(1 << 32, size=(NUM_VALUES, 1), dtype=np.uint32) | np.uint32(1)
_OFFSETS = _RNG.integers(1 << 32, size=(NUM_VALUES, 1), dtype=np.uint32)
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # splitmix64
_BASE = np.uint64(0x100000001B3)


def jaccard(first: AbstractSet[str], second: AbstractSet[str]) -> float:
    """|A ∩ B| / |A ∪ B| of two sets that are not both empty."""
    return len(first & second) / len(first | second)


def ngram_hashes(text: str, size: int) -> Hashes:
    """Hashes of all runs of `size` characters; of the text itself if it is shorter."""
    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    num_grams = max(len(characters) - size + 1, 1)
    hashes = np.zeros(num_grams, np.uint64)
    for place in range(min(size, len(characters))):
        hashes *= _BASE
        hashes += characters[place : place + num_grams]
    return _mixed(hashes)


def text_hashes(texts: Iterable[str]) -> Hashes:
    """Hashes of texts, of which there is at least one."""
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return _mixed(np.frombuffer(digests, "<u8"))


def _mixed(hashes: Hashes) -> Hashes:
    """Each depends on all bits of its own: the sketch uses the lower half."""
    mixed = hashes >> np.uint64(29)
    mixed ^= hashes
    mixed *= _MIX
    mixed ^= mixed >> np.uint64(32)
    return mixed


@dataclass(frozen=True)
class Bands:
    """How sketches are cut into bands."""

    num_bands: int
    values_per_band: int

    @classmethod
    def for_similarity(cls, min_similarity: float) -> Self:
        """The bands for sets of at least this similarity."""
        for values_per_band in range(8, 1, -1):
            num_bands = NUM_VALUES // values_per_band
            if (1 - min_similarity**values_per_band) ** num_bands < MAX_MISSED:
                return cls(num_bands, values_per_band)
        return cls(NUM_VALUES, 1)

    @property
    def num_values(self) -> int:
        """Values of a sketch."""
        return self.num_bands * self.values_per_band

    def sketch(self, hashes: Hashes) -> NDArray[np.uint32]:
        """(b · r,) the smallest value of each hash function over the set."""
        factors, offsets = _FACTORS[: self.num_values], _OFFSETS[: self.num_values]
        low = hashes.astype(np.uint32)
        parts = []
        for start in range(0, len(low), HASHES_AT_ONCE):
            values = factors * low[start : start + HASHES_AT_ONCE]
            values += offsets
            parts.append(values.min(axis=1))
        return parts[0] if len(parts) == 1 else np.asarray(np.minimum.reduce(parts))

    def keys(self, sketches: NDArray[np.uint32]) -> Hashes:
        """(N, b) one number for each band of each sketch."""
        values = sketches.reshape(-1, self.num_bands, self.values_per_band)
        keys = np.zeros(values.shape[:2], np.uint64)
        for place in range(self.values_per_band):
            keys = _mixed(keys * _BASE + values[:, :, place])
        return keys


@dataclass(frozen=True)
class BandIndex:
    """Sets by the keys of their bands."""

    num_bands: int
    _rows: dict[tuple[int, int], list[int]] = field(default_factory=dict)

    def insert(self, row: int, keys: Sequence[int | None]) -> None:
        """Add a set. None is the key of a band in which it is not looked for."""
        for place in enumerate(keys):
            if place[1] is not None:
                rows = self._rows.setdefault(place, [])  # type: ignore[arg-type]
                if len(rows) < MAX_SETS_PER_BAND:
                    rows.append(row)

    def query(self, keys: Sequence[int | None]) -> list[int]:
        """The candidates, those that agree in the most bands first."""
        found: Counter[int] = Counter()
        for place in enumerate(keys):
            if place[1] is not None:
                found.update(self._rows.get(place, ()))  # type: ignore[arg-type]
        ordered = sorted(found.items(), key=lambda each: (-each[1], each[0]))
        return [row for row, _ in ordered[:MAX_CANDIDATES]]


def shared_keys(keys: Hashes) -> NDArray[np.bool_]:
    """(N, b) whether another of the sets has the same key in that band.

    Of most pools nearly none has: only these need a place in an index.
    """
    shared = np.zeros(keys.shape, np.bool_)
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band])
        ascending = keys[order, band]
        is_same = ascending[1:] == ascending[:-1]
        shared[order[1:][is_same], band] = True
        shared[order[:-1][is_same], band] = True
    return shared
