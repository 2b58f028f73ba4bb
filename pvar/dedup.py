"""Deduplication of prompts: exact after normalisation, and near-duplicates by MinHash.

Two prompts are exact duplicates if their messages are equal after `normalise`, and near-duplicates
if the Jaccard similarity of their sets of character 5-grams is at least a threshold and, if they
are short, their words are the same: "object number 3" and "object number 4" are most of the same
characters and two prompts, whatever surrounds them. The words of short prompts are compared without
punctuation at their ends (that within them has a meaning: 2+2) and without words such as "please"
(`FILLERS`).

Of long prompts, MinHash proposes candidates, and their similarity is then computed exactly
(`pvar/minhash.py`). So hashing never removes a prompt that is not similar, and misses nearly none.

One of several duplicates is kept, independent of the row order: evaluation prompts before training
prompts, then the smallest prompt id. Paraphrases are not detected, neither are misspellings in
short prompts, nor near-duplicates of very long ones (`MAX_COMPARED_CHARACTERS`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.minhash import BandIndex, Bands, Hashes, jaccard, ngram_hashes, shared_keys
from pvar.normalised_text import normalise, plain
from pvar.records import Message, Prompt
from pvar.row_counts import RowCounts
from pvar.word_ngrams import has_words

NGRAM_CHARACTERS = 5
MAX_COMPARED_CHARACTERS = 200_000
"""A longer prompt, such as one with an inlined picture, is compared for equality only: the sets of
n-grams of two texts of 6 MB take 2 GiB and a minute."""
SKETCHES_AT_ONCE = 1 << 12
FILLERS = frozenset({"a", "an", "the", "please", "hello", "hi", "thanks"})
"""Words that make no other prompt."""


class Duplicate(NamedTuple):
    """A removed prompt, and the kept prompt that it duplicates."""

    prompt_id: str
    kept_prompt_id: str
    reason: Literal["duplicate", "near_duplicate"]
    similarity: float
    """Jaccard similarity to the kept prompt; 1 for exact duplicates."""


class Deduplication(NamedTuple):
    """The kept prompts in input order, and the removed ones."""

    prompts: list[Prompt]
    removed: list[Duplicate]
    row_counts: RowCounts


def deduplicate(
    prompts: Sequence[Prompt],
    *,
    min_similarity: float | None = 0.8,
    strict_below_words: int = 0,
) -> Deduplication:
    """Keep one prompt of each set of duplicates; `min_similarity` None removes exact ones only.

    Prompts of fewer than `strict_below_words` words are near-duplicates only of those with the same
    words.
    """
    order = sorted(range(len(prompts)), key=lambda row: _precedence(prompts[row]))
    kept_rows, removed = _remove_exact(prompts, order)
    if min_similarity is not None:
        near = _near_duplicates(prompts, kept_rows, min_similarity, strict_below_words)
        kept_rows = [row for row in kept_rows if row not in near]
        removed += near.values()
    kept = [prompts[row] for row in sorted(kept_rows)]
    rejected = Counter(duplicate.reason for duplicate in removed)
    return Deduplication(
        kept,
        removed,
        RowCounts(
            rows_in=len(prompts), rows_out=len(kept), rejected=dict(sorted(rejected.items()))
        ),
    )


def _remove_exact(
    prompts: Sequence[Prompt], order: Iterable[int]
) -> tuple[list[int], list[Duplicate]]:
    first: dict[tuple[Message, ...], int] = {}
    removed = []
    for row in order:
        kept = first.setdefault(_normalised(prompts[row]), row)
        if kept != row:
            removed.append(
                Duplicate(prompts[row].prompt_id, prompts[kept].prompt_id, "duplicate", 1.0)
            )
    return list(first.values()), removed


def _near_duplicates(
    prompts: Sequence[Prompt], order: Sequence[int], min_similarity: float, strict_below_words: int
) -> dict[int, Duplicate]:
    """The rows to remove, in this order."""
    bands = Bands.for_similarity(min_similarity)
    words: dict[int, bytes] = {}
    """Of short prompts, as hashes."""
    long_rows: list[int] = []
    systems: list[bytes] = []
    sketches: list[NDArray[np.uint32]] = []
    keys: list[Hashes] = [np.empty((0, bands.num_bands), np.uint64)]
    for row in order:
        if sum(len(each.content) for each in prompts[row].messages) > MAX_COMPARED_CHARACTERS:
            continue
        text = _text(prompts[row])
        system = _system(prompts[row])
        if not has_words(text, strict_below_words):
            words[row] = _significant(text, system)
            continue
        long_rows.append(row)
        systems.append(_hash(system)[:8])
        sketches.append(bands.sketch(ngram_hashes(text, NGRAM_CHARACTERS)))
        if len(sketches) == SKETCHES_AT_ONCE:
            keys.append(bands.keys(np.stack(sketches)))
            sketches = []
    keys += [bands.keys(np.stack(sketches))] if sketches else []
    # Prompts with different system messages share no key, so that none is proposed for another.
    all_keys = np.concatenate(keys) ^ np.frombuffer(b"".join(systems), np.uint64)[:, None]
    shared = shared_keys(all_keys)
    is_shared: list[bool] = np.logical_or.reduce(shared, axis=1).tolist()
    place_of = {row: place for place, row in enumerate(long_rows) if is_shared[place]}
    num_same = Counter(words.values())
    words = {row: same for row, same in words.items() if num_same[same] > 1}
    by_words: dict[bytes, list[int]] = {}
    by_keys = BandIndex(bands.num_bands)
    found: dict[int, Duplicate] = {}
    for row in order:
        others, own = [], None
        if row in words:
            others = by_words.setdefault(words[row], [])
        elif row in place_of:
            place = place_of[row]
            own = [
                key if is_shared_key else None
                for key, is_shared_key in zip(
                    all_keys[place].tolist(), shared[place].tolist(), strict=True
                )
            ]
            others = by_keys.query(own)
        nearest = _nearest(prompts, row, others) if others else None
        if nearest is not None and nearest.similarity >= min_similarity:
            found[row] = nearest
        elif own is not None:
            by_keys.insert(row, own)
        elif row in words:
            others.append(row)
    return found


def _significant(text: str, system: str) -> bytes:
    """A hash of what two short prompts must have in common."""
    words = " ".join(word for word in plain(text).split() if word not in FILLERS)
    return _hash(f"{words}\n{system}")


def _hash(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _nearest(prompts: Sequence[Prompt], row: int, others: Sequence[int]) -> Duplicate:
    """The most similar of the other prompts."""
    prompt, grams = prompts[row], _ngrams(prompts[row])
    found = [
        Duplicate(
            prompt.prompt_id,
            prompts[other].prompt_id,
            "near_duplicate",
            jaccard(grams, _ngrams(prompts[other])),
        )
        for other in others
    ]
    return max(found, key=lambda each: (each.similarity, each.kept_prompt_id))


def _text(prompt: Prompt) -> str:
    """The conversation without the system message, which many share."""
    return normalise(
        "\n".join(message.content for message in prompt.messages if message.role != "system")
    )


def _ngrams(prompt: Prompt) -> frozenset[str]:
    text = _text(prompt)
    last = max(len(text) - NGRAM_CHARACTERS, 0)
    return frozenset(text[start : start + NGRAM_CHARACTERS] for start in range(last + 1))


def _system(prompt: Prompt) -> str:
    """The system messages, of which each ends its line."""
    return "".join(
        f"{normalise(message.content)}\n" for message in prompt.messages if message.role == "system"
    )


def _normalised(prompt: Prompt) -> tuple[Message, ...]:
    return tuple(Message(message.role, normalise(message.content)) for message in prompt.messages)


def _precedence(prompt: Prompt) -> tuple[bool, str, str, str, str]:
    """Sort key: the prompt to keep comes first."""
    return (
        prompt.split != "eval",
        prompt.prompt_id,
        prompt.source,
        prompt.chosen or "",
        prompt.rejected or "",
    )
