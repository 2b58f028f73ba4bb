"""The prompts that ship with the package: complete, distinct, and varied enough to teach."""

import json
import re
from collections import Counter
from importlib.resources import files
from itertools import combinations
from typing import Any, NamedTuple

from pvar.dedup import deduplicate
from pvar.digest import prompt_id
from pvar.evaluation.ability import is_right
from pvar.records import Message, Prompt


class DemoPrompt(NamedTuple):
    prompt: str
    topic: str
    kind: str


class DemoQuestion(NamedTuple):
    prompt: str
    topic: str
    kind: str
    answer: str | list[str]

    @property
    def accepted(self) -> list[str]:
        return [self.answer] if isinstance(self.answer, str) else self.answer


def demo_rows() -> list[dict[str, Any]]:
    text = (files("pvar") / "data" / "sentiment_prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def demo_prompts() -> list[DemoPrompt]:
    return [DemoPrompt(**row) for row in demo_rows() if "answer" not in row]


def demo_questions() -> list[DemoQuestion]:
    return [DemoQuestion(**row) for row in demo_rows() if "answer" in row]


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


def test_there_are_40_questions_and_none_is_near_another_row() -> None:
    # At the similarity at which ingest drops: two questions alike would silently be one.
    texts = [row["prompt"] for row in demo_rows()]
    conversations = [(Message("user", text),) for text in texts]
    rows = [Prompt(prompt_id(each), each, "eval", "demo") for each in conversations]

    assert len(demo_questions()) == 40
    assert deduplicate(rows, min_similarity=0.8).removed == []


def test_a_question_is_right_with_each_accepted_answer_and_not_by_repeating_it() -> None:
    for row in demo_questions():
        assert row.prompt == row.prompt.strip()
        assert row.prompt.isascii()
        assert all(is_right(f"It is {each}.", row.accepted) for each in row.accepted)
        assert not is_right(row.prompt, row.accepted)
