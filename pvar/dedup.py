"""Deduplication of prompts: exact after normalisation, and near-duplicates by MinHash.

Two prompts are exact duplicates if their messages are equal after `normalise`, and near-duplicates
if the Jaccard similarity of their sets of character 5-grams is at least a threshold. MinHash
proposes candidates, and their similarity is then computed exactly (`pvar/minhash.py`). So hashing
can miss a near-duplicate, but never removes another prompt.

One of several duplicates is kept, independent of the row order: evaluation prompts before training
prompts, then the smallest prompt id. Paraphrases are not detected, and neither are near-duplicates
of very long prompts (`MAX_COMPARED_CHARACTERS`).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pvar.minhash import jaccard, new_index, new_sketcher
from pvar.records import Message, Prompt
from pvar.row_counts import RowCounts

NGRAM_CHARACTERS = 5
MAX_COMPARED_CHARACTERS = 200_000
"""A longer prompt, such as one with an inlined picture, is compared for equality only: the sets of
n-grams of two texts of 6 MB take 2 GiB and a minute."""
_WHITE_SPACE = re.compile(r"\s+")


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


def deduplicate(prompts: Sequence[Prompt], *, min_similarity: float | None = 0.8) -> Deduplication:
    """Keep one prompt of each set of duplicates; `min_similarity` None removes exact ones only."""
    order = sorted(range(len(prompts)), key=lambda row: _precedence(prompts[row]))
    kept_rows, removed = _remove_exact(prompts, order)
    if min_similarity is not None:
        kept_rows, near = _remove_near(prompts, kept_rows, min_similarity)
        removed += near
    kept = [prompts[row] for row in sorted(kept_rows)]
    rejected = Counter(duplicate.reason for duplicate in removed)
    return Deduplication(
        kept,
        removed,
        RowCounts(
            rows_in=len(prompts), rows_out=len(kept), rejected=dict(sorted(rejected.items()))
        ),
    )


def normalise(text: str) -> str:
    """Unicode NFKC, case folding, runs of white space replaced by one space, ends stripped."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WHITE_SPACE.sub(" ", folded).strip()


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


def _remove_near(
    prompts: Sequence[Prompt], order: Sequence[int], min_similarity: float
) -> tuple[list[int], list[Duplicate]]:
    index, sketch_of = new_index(min_similarity), new_sketcher()
    kept, removed = [], []
    for row in order:
        if sum(len(each.content) for each in prompts[row].messages) > MAX_COMPARED_CHARACTERS:
            kept.append(row)
            continue
        sketch = sketch_of(_ngrams(prompts[row]))
        found = _nearest(prompts, row, index.query(sketch))
        if found is None or found.similarity < min_similarity:
            index.insert(row, sketch)
            kept.append(row)
        else:
            removed.append(found)
    return kept, removed


def _nearest(prompts: Sequence[Prompt], row: int, others: Iterable[int]) -> Duplicate | None:
    """The most similar of the other prompts that have the same system message."""
    prompt = prompts[row]
    grams = _ngrams(prompt)
    comparable = [prompts[other] for other in others if _system(prompts[other]) == _system(prompt)]
    found = [
        Duplicate(
            prompt.prompt_id, other.prompt_id, "near_duplicate", jaccard(grams, _ngrams(other))
        )
        for other in comparable
    ]
    return max(found, key=lambda each: (each.similarity, each.kept_prompt_id), default=None)


def _ngrams(prompt: Prompt) -> frozenset[str]:
    """Character n-grams of the conversation, without the system message, which many share."""
    text = normalise(
        "\n".join(message.content for message in prompt.messages if message.role != "system")
    )
    last = max(len(text) - NGRAM_CHARACTERS, 0)
    return frozenset(text[start : start + NGRAM_CHARACTERS] for start in range(last + 1))


def _system(prompt: Prompt) -> tuple[str, ...]:
    return tuple(
        normalise(message.content) for message in prompt.messages if message.role == "system"
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
