"""Decontamination: training prompts that share an n-gram of words with an evaluation prompt go.

The rule of GPT-3 (arXiv 2005.14165, appendix C) with n = 13 words; words are compared without case
and punctuation, and each Chinese, Japanese or Korean character counts as a word. An evaluation
prompt shorter than n words contaminates only the prompt that equals it: "Tell me a joke" is part
of too many others. Not found: paraphrases and translations.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pvar.accounts import Accounts
from pvar.dedup import normalise
from pvar.records import Prompt

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")

Words = tuple[str, ...]


class EvaluationPrompt(NamedTuple):
    """A prompt that training must not see."""

    name: str
    """Benchmark and number, for the report."""
    text: str


class Contaminated(NamedTuple):
    """A training prompt that was removed, and for which evaluation prompt."""

    prompt_id: str
    evaluation_prompt: str
    """Name of the evaluation prompt."""
    shared: str
    """The shared words: the first shared n-gram, or the whole of a shorter prompt."""


class Decontamination(NamedTuple):
    """What stayed, in the order it came, and what went and why."""

    prompts: list[Prompt]
    removed: list[Contaminated]
    accounts: Accounts


def decontaminate(
    prompts: Sequence[Prompt], evaluation: Iterable[EvaluationPrompt], *, ngram_words: int = 13
) -> Decontamination:
    """Remove the prompts whose user messages overlap with an evaluation prompt.

    A long answer in the history of a conversation is not looked at.
    """
    index = _index(evaluation, ngram_words)
    kept, removed = [], []
    for prompt in prompts:
        found = _overlap(prompt, index, ngram_words)
        if found is None:
            kept.append(prompt)
        else:
            removed.append(found)
    rejected = {"contaminated": len(removed)} if removed else {}
    return Decontamination(
        kept, removed, Accounts(rows_in=len(prompts), rows_out=len(kept), rejected=rejected)
    )


def _index(evaluation: Iterable[EvaluationPrompt], size: int) -> dict[Words, str]:
    """N-gram (or whole short prompt) → name of the first evaluation prompt that has it."""
    index: dict[Words, str] = {}
    for prompt in evaluation:
        for gram in _grams(_words(prompt.text), size):
            index.setdefault(gram, prompt.name)
    return index


def _overlap(prompt: Prompt, index: dict[Words, str], size: int) -> Contaminated | None:
    for message in prompt.messages:
        if message.role != "user":
            continue
        for gram in _grams(_words(message.content), size):
            if gram in index:
                return Contaminated(prompt.prompt_id, index[gram], " ".join(gram))
    return None


def _grams(words: Words, size: int) -> Iterable[Words]:
    """All runs of `size` words, or the text itself where it is shorter (if it has words)."""
    if not words:
        return ()
    starts = range(max(len(words) - size, 0) + 1)
    return (words[start : start + size] for start in starts)


def _words(text: str) -> Words:
    return tuple(_WORD.findall(normalise(text)))
