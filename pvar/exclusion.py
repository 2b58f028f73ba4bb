"""Exclusion: which training prompts are prompts of an exam, or nearly so.

An exam is a set of prompts on which models are measured, so that a model must not be trained on
them. User messages are compared; system messages and answers in a history are ignored. Of these
rules the first that applies is given:

    same_text       all user messages of the exam prompt occur in the training prompt, one after the
                    other, apart from case, white space, and punctuation at the ends of words
    shared_words    an n-gram of words is shared (GPT-3's rule, n = 13: arXiv 2005.14165,
                    appendix C)
    near_duplicate  both messages have at least 13 words, and the Jaccard similarity of their sets
                    of word 3-grams is at least a threshold

Short prompts are compared by `same_text` only: one word of nine, as in "object number 3" and
"object number 4", makes another question. Words are the unit of the near-duplicates for the same
reason: of character n-grams, which `pvar/dedup.py` compares, a changed digit changes few. Of a
message of w words one inserted word leaves a similarity of (w − 4)/(w + 1) or more, and one
replaced word (w − 5)/(w + 1): at the usual threshold of 0.6 the first is found in every long
message, and the second from 14 words on. Near-duplicates are found by hashing, which misses nearly
none (`pvar/minhash.py`). Paraphrases and translations are not found.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pvar.minhash import BandIndex, Bands, jaccard, text_hashes
from pvar.normalised_text import plain
from pvar.records import Prompt
from pvar.word_ngrams import Words, word_ngrams, words_of

ExclusionRule = Literal["same_text", "shared_words", "near_duplicate"]

MIN_SIMILARITY = 0.6
"""The usual threshold of near-duplicates."""
MIN_WORDS = 13
"""Messages with fewer words have no near-duplicates."""
NGRAM_WORDS = 3
"""Length of the n-grams whose sets are compared for near-duplicates."""
MAX_SHOWN_CHARACTERS = 200


class Exclusion(NamedTuple):
    """A training prompt, and a prompt of one exam that excludes it."""

    prompt_id: str
    exam: str
    """Name of the exam."""
    exam_prompt_id: str
    """The first prompt of the exam to which the rule applies."""
    rule: ExclusionRule
    shared: str
    """The text or the n-gram that both have, or the similarity of near-duplicates."""


def find_exclusions(
    prompts: Iterable[Prompt],
    exams: Mapping[str, Sequence[Prompt]],
    *,
    ngram_words: int,
    min_similarity: float,
) -> list[Exclusion]:
    """One row per prompt and exam that excludes it, in the order of the prompts and exams."""
    bands = Bands.for_similarity(min_similarity)
    index = _Index(ngram_words, min_similarity, bands, BandIndex(bands.num_bands))
    for exam, exam_prompts in exams.items():
        for prompt in exam_prompts:
            index.add(exam, prompt)
    found = []
    for prompt in prompts:
        of_prompt: dict[str, Exclusion] = {}
        for rule, match in index.matches(_user_messages(prompt)):
            row = Exclusion(prompt.prompt_id, match.exam, match.prompt_id, rule, match.shared)
            of_prompt.setdefault(match.exam, row)
        if of_prompt:
            found += [of_prompt[exam] for exam in exams if exam in of_prompt]
    return found


class _Match(NamedTuple):
    exam: str
    prompt_id: str
    shared: str


class _LongMessage(NamedTuple):
    """A message of an exam in which near-duplicates are looked for."""

    exam: str
    prompt_id: str
    grams: frozenset[str]


Texts = tuple[str, ...]
"""The texts of several user messages, in order."""
Places = dict[str, str]
"""Exam → the first of its prompts that has the texts or the n-gram."""


@dataclass(frozen=True)
class _Index:
    """All exams' prompts, by what is looked for in training prompts."""

    ngram_words: int
    min_similarity: float
    bands: Bands
    similar: BandIndex
    """Of `long_messages`, by position."""
    long_messages: list[_LongMessage] = field(default_factory=list)
    same: dict[Texts, Places] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    """Numbers of messages of the keys of `same`."""
    ngrams: dict[Words, Places] = field(default_factory=dict)

    def add(self, exam: str, prompt: Prompt) -> None:
        messages = _user_messages(prompt)
        if any(texts := tuple(message.text for message in messages)):
            _note(self.same, texts, exam, prompt.prompt_id)
            self.sizes.add(len(texts))
        for message in messages:
            for ngram in word_ngrams(message.words, self.ngram_words):
                _note(self.ngrams, ngram, exam, prompt.prompt_id)
            if grams := message.grams:
                self.similar.insert(len(self.long_messages), self._keys(grams))
                self.long_messages.append(_LongMessage(exam, prompt.prompt_id, grams))

    def matches(self, messages: Sequence["_UserMessage"]) -> Iterator[tuple[ExclusionRule, _Match]]:
        """All matches, rule by rule."""
        texts = tuple(message.text for message in messages)
        for size in sorted(self.sizes):
            for start in range(len(texts) - size + 1):
                run = texts[start : start + size]
                for exam, prompt_id in self.same.get(run, {}).items():
                    shared = " / ".join(run)[:MAX_SHOWN_CHARACTERS]
                    yield "same_text", _Match(exam, prompt_id, shared)
        for message in messages:
            for ngram in word_ngrams(message.words, self.ngram_words):
                for exam, prompt_id in self.ngrams.get(ngram, {}).items():
                    yield "shared_words", _Match(exam, prompt_id, " ".join(ngram))
        for message in messages:
            for match in self._near(message.grams):
                yield "near_duplicate", match

    def _keys(self, grams: frozenset[str]) -> list[int]:
        keys: list[int] = self.bands.keys(self.bands.sketch(text_hashes(grams)))[0].tolist()
        return keys

    def _near(self, grams: frozenset[str]) -> Iterator[_Match]:
        """The near-duplicates, most similar first."""
        if not grams:
            return
        proposed = [self.long_messages[number] for number in self.similar.query(self._keys(grams))]
        similar = [(jaccard(grams, message.grams), message) for message in proposed]
        for similarity, message in sorted(similar, key=lambda pair: (-pair[0], pair[1].prompt_id)):
            if similarity >= self.min_similarity:
                shared = f"{similarity:.2f} similar in {NGRAM_WORDS}-grams of words"
                yield _Match(message.exam, message.prompt_id, shared)


def _note(places: dict[tuple[str, ...], Places], key: Texts, exam: str, prompt_id: str) -> None:
    places.setdefault(key, {}).setdefault(exam, prompt_id)


class _UserMessage(NamedTuple):
    text: str
    """For comparison as a whole; empty if there is only punctuation."""
    words: Words

    @property
    def grams(self) -> frozenset[str]:
        """Its set of word n-grams; empty for a short message."""
        if len(self.words) < MIN_WORDS:
            return frozenset()
        return frozenset(" ".join(gram) for gram in word_ngrams(self.words, NGRAM_WORDS))


def _user_messages(prompt: Prompt) -> list[_UserMessage]:
    return [
        _UserMessage(plain(message.content), words_of(message.content))
        for message in prompt.messages
        if message.role == "user"
    ]
