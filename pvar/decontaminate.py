"""Decontamination: drop training prompts that share an n-gram of words with an evaluation prompt.

This is the rule of GPT-3 (arXiv 2005.14165, appendix C) with n = 13 words. Words are compared
without case and punctuation; each Chinese, Japanese or Korean character counts as a word. An
evaluation prompt shorter than n words matches only an equal prompt, because "Tell me a joke" is
part of too many others. Paraphrases and translations are not found.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pvar.records import Prompt
from pvar.row_counts import RowCounts
from pvar.word_ngrams import Words, word_ngrams, words_of


class EvaluationPrompt(NamedTuple):
    """An evaluation prompt, which must not be trained on."""

    name: str
    """Benchmark name and row number, for the report."""
    text: str


class Contaminated(NamedTuple):
    """A removed training prompt, and the evaluation prompt that it matches."""

    prompt_id: str
    evaluation_prompt: str
    """Name of the evaluation prompt."""
    shared: str
    """The shared words: the first shared n-gram, or the whole of a shorter prompt."""


class Decontamination(NamedTuple):
    """The kept prompts in input order, and the removed ones with their reasons."""

    prompts: list[Prompt]
    removed: list[Contaminated]
    row_counts: RowCounts


def decontaminate(
    prompts: Sequence[Prompt], evaluation: Iterable[EvaluationPrompt], *, ngram_words: int = 13
) -> Decontamination:
    """Remove the prompts whose user messages overlap with an evaluation prompt.

    Assistant messages in the history of a conversation are ignored.
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
        kept, removed, RowCounts(rows_in=len(prompts), rows_out=len(kept), rejected=rejected)
    )


def _index(evaluation: Iterable[EvaluationPrompt], size: int) -> dict[Words, str]:
    """N-gram (or whole short prompt) → name of the first evaluation prompt that has it."""
    index: dict[Words, str] = {}
    for prompt in evaluation:
        for gram in _grams(words_of(prompt.text), size):
            index.setdefault(gram, prompt.name)
    return index


def _overlap(prompt: Prompt, index: dict[Words, str], size: int) -> Contaminated | None:
    for message in prompt.messages:
        if message.role != "user":
            continue
        for gram in _grams(words_of(message.content), size):
            if gram in index:
                return Contaminated(prompt.prompt_id, index[gram], " ".join(gram))
    return None


def _grams(words: Words, size: int) -> Iterable[Words]:
    """All n-grams of `size` words, or the whole text if it is shorter (and has words)."""
    if not words:
        return ()
    return word_ngrams(words, min(size, len(words)))
