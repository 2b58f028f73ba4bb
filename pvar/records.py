"""The rows that are passed between stages, as frozen records. Joins use ids only.

Ids are content hashes (`pvar.digest`), so a prompt has the same id in every file, run and machine.
Rows are never joined by position, which resuming, sharding and filtering change.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length", "error"]
"""Why sampling ended: the model finished, reached the token limit, or failed."""

Split = Literal["train", "eval"]


class Row(NamedTuple):
    """A row of a user's file, before parsing."""

    number: int
    """Line number (JSON lines) or row number (Parquet), from 1."""
    fields: Mapping[str, object]


class BadRow(NamedTuple):
    """An invalid line of a user's file."""

    number: int
    """Line number, from 1."""
    reason: str
    rule: str = "unreadable_line"
    """The reason for rejection, as rows are counted by it."""


class Message(NamedTuple):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(NamedTuple):
    """A prompt, with its annotated answers if the source has them.

    A prompt with accepted answers is an ability question: always held out, and scored by comparing
    answers instead of by a judge.
    """

    prompt_id: str
    messages: tuple[Message, ...]
    split: Split
    source: str
    """Name of its data set or file, or what its row says (`ingest.source_field`)."""
    chosen: str | None = None
    """The preferred answer annotated in the source (preference rows only)."""
    rejected: str | None = None
    chosen_score: float | None = None
    """The score of `chosen` annotated in the source, if any."""
    rejected_score: float | None = None
    chosen_aspects: tuple[float, ...] = ()
    """Annotated ratings of single aspects of `chosen` (UltraFeedback: 1 to 5)."""
    accepted_answers: tuple[str, ...] = ()
    """Accepted strings; a correct answer contains one of them (ability questions only)."""

    @property
    def is_question(self) -> bool:
        """Whether this is an ability question, which is neither trained on nor judged."""
        return bool(self.accepted_answers)


class Response(NamedTuple):
    """One response sampled for a prompt."""

    prompt_id: str
    response_id: str
    """Hash of (prompt id, sample index, text): equal texts stay separate samples."""
    sample_index: int
    """0-based number of the sample within its prompt."""
    text: str
    num_tokens: int
    """Generated tokens, including the end-of-sequence token."""
    finish_reason: FinishReason


class Score(NamedTuple):
    """One reward of one response. A missing reward is None (not zero) and has a reason."""

    prompt_id: str
    response_id: str
    reward: float | None
    reason: str | None = None


class Pair(NamedTuple):
    """A chosen and a rejected answer to train on."""

    prompt_id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_reward: float | None
    """None for annotated pairs, which have no reward."""
    rejected_reward: float | None


class Comparison(NamedTuple):
    """Two answers to one prompt, in the order in which a judge sees them."""

    prompt_id: str
    messages: tuple[Message, ...]
    first: str
    second: str


class Verdict(NamedTuple):
    """A judge's verdict on a comparison."""

    prompt_id: str
    preference: float | None
    """Probability in [0, 1] that `second` is better; ½ is a tie; None is a missing verdict."""
    reason: str | None = None
    """Why the verdict is missing."""
