"""The prompts that ship with the package: complete, distinct, and varied enough to teach."""

import json
import re
from collections import Counter
from importlib.resources import files
from itertools import combinations
from typing import NamedTuple


class DemoPrompt(NamedTuple):
    prompt: str
    topic: str
    kind: str


def demo_prompts() -> list[DemoPrompt]:
    text = (files("pvar") / "data" / "sentiment_prompts.jsonl").read_text(encoding="utf-8")
    return [DemoPrompt(**json.loads(line)) for line in text.splitlines()]


def trigrams(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b)


def test_there_are_208_prompts_and_no_two_are_equal() -> None:
    prompts = demo_prompts()

    assert len(prompts) == 208
    assert len({row.prompt.casefold() for row in prompts}) == 208


def test_no_two_prompts_are_near_duplicates() -> None:
    # Exact Jaccard similarity of word 3-grams: 208 prompts are few enough for all 21 528 pairs.
    grams = [(row.prompt, trigrams(row.prompt)) for row in demo_prompts()]

    alike = [
        (first, second) for (first, a), (second, b) in combinations(grams, 2) if jaccard(a, b) > 0.7
    ]

    assert alike == []


def test_no_prompt_is_blank_overlong_or_outside_ascii() -> None:
    for row in demo_prompts():
        assert all(field == field.strip() and field for field in row)
        assert row.prompt.isascii()
        assert 5 <= len(row.prompt.split()) <= 40


def test_no_kind_and_no_opening_dominates() -> None:
    prompts = demo_prompts()
    kinds = Counter(row.kind for row in prompts)
    openings = Counter(tuple(row.prompt.split()[:3]) for row in prompts)

    assert max(kinds.values()) <= 0.25 * len(prompts)
    assert max(openings.values()) <= 0.10 * len(prompts)
    assert len({row.topic for row in prompts}) >= 40
