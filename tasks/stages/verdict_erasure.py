"""Cached verdicts, anchors and queues of pairs to be labelled, of prompts that are to be erased.

A verdict's key is a hash of what the judge saw, so the keys of a prompt's verdicts are those of all
pairs of its texts.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product

from pvar.ports import Store
from pvar.records import Comparison, Prompt
from tasks.engine.artifact import read_document
from tasks.stages.anchors import AnchorSet
from tasks.stages.annotate import ANNOTATIONS
from tasks.stages.verdict_cache import verdict_key


def verdicts_of(
    store: Store, prompts: Iterable[Prompt], texts: Mapping[str, Collection[str]]
) -> list[str]:
    """Keys of all cached verdicts on two of the texts of a prompt, which are given by its id."""
    names = {
        verdict_key({}, Comparison(prompt.prompt_id, prompt.messages, *pair)).rpartition("/")[2]
        for prompt in prompts
        for pair in product(sorted(texts.get(prompt.prompt_id, ())), repeat=2)
    }
    return [info.key for info in store.list("verdicts/") if info.key.rpartition("/")[2] in names]


def anchors_of(store: Store, prompt_ids: Collection[str]) -> dict[str, int]:
    """Number of anchors of these prompts, by key."""
    counts = {
        key: sum(each.prompt_id in prompt_ids for each in anchors.anchors)
        for key, anchors in _anchor_sets(store)
    }
    return {key: count for key, count in counts.items() if count}


def erase_anchors(store: Store, prompt_ids: Collection[str]) -> None:
    """Leave these prompts out of all anchors. Anchors of which none is left are chosen again."""
    for key, anchors in _anchor_sets(store):
        left = tuple(each for each in anchors.anchors if each.prompt_id not in prompt_ids)
        if not left:
            store.delete(key)
        elif len(left) < len(anchors.anchors):
            kept = anchors.model_copy(update={"anchors": left})
            store.write(key, kept.model_dump_json(indent=1).encode() + b"\n")


def queued_of(store: Store, prompt_ids: Collection[str]) -> dict[str, int]:
    """Number of pairs of these prompts in the queues of stage annotate, by key."""
    counts = {}
    for key in [info.key for info in store.list(f"{ANNOTATIONS}/")]:
        lines = store.read(key).splitlines()
        if num := sum(_is_queued(line, prompt_ids) for line in lines):
            counts[key] = num
    return counts


def erase_queued(store: Store, prompt_ids: Collection[str]) -> None:
    """Leave these prompts out of all queues."""
    for key in queued_of(store, prompt_ids):
        lines = store.read(key).splitlines(keepends=True)
        store.write(key, b"".join(each for each in lines if not _is_queued(each, prompt_ids)))


def _is_queued(line: bytes, prompt_ids: Collection[str]) -> bool:
    row = json.loads(line)
    return isinstance(row, dict) and row.get("prompt_id") in prompt_ids


def _anchor_sets(store: Store) -> Iterator[tuple[str, AnchorSet]]:
    for key in [info.key for info in store.list("anchors/")]:
        anchors = read_document(store, key, AnchorSet)
        if anchors is not None and anchors.anchors:
            yield key, anchors
