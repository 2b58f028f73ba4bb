"""The rows that travel between stages. One row, one frozen record; joins are by id only.

Ids are content hashes (`pvar.digest`), so the same prompt has the same id in every file, run and
machine, and a row can be joined without trusting its position, which resuming, sharding and
filtering change.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length", "error"]
"""Why sampling ended: the model ended its answer, ran into the token limit, or failed."""

Split = Literal["train", "eval"]


class Row(NamedTuple):
    """A row of a user's file, as it is there."""

    number: int
    """Line number (JSON lines) or row number (Parquet), from 1."""
    fields: Mapping[str, object]


class BadRow(NamedTuple):
    """A line of a user's file that is not a row."""

    number: int
    """Line number, from 1."""
    reason: str


class Message(NamedTuple):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(NamedTuple):
    """A prompt, and where the source had them its annotated answers.

    With accepted answers it is an ability question: always held out, scored by itself, not judged.
    """

    prompt_id: str
    messages: tuple[Message, ...]
    split: Split
    source: str
    """Name of the data set or file that it came from."""
    chosen: str | None = None
    """The source's own preferred answer (preference rows only)."""
    rejected: str | None = None
    chosen_score: float | None = None
    """The source's own score of `chosen`, where it has one."""
    rejected_score: float | None = None
    chosen_aspects: tuple[float, ...] = ()
    """The source's ratings of single aspects of `chosen` (UltraFeedback: 1 to 5)."""
    accepted_answers: tuple[str, ...] = ()
    """What a right answer holds, one of them (ability questions only)."""

    @property
    def is_question(self) -> bool:
        """Whether it measures ability, and so is neither trained on nor shown to a judge."""
        return bool(self.accepted_answers)


class Response(NamedTuple):
    """One answer sampled for a prompt."""

    prompt_id: str
    response_id: str
    """Hash of (prompt id, sample index, text): equal texts stay separate samples."""
    sample_index: int
    """0-based number of the sample within its prompt."""
    text: str
    num_tokens: int
    """Generated tokens, the end-of-sequence token included."""
    finish_reason: FinishReason


class Score(NamedTuple):
    """One reward of one response. A missing reward is None and has a reason; it is never zero."""

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
    """None for original annotations, which carry no reward."""
    rejected_reward: float | None


class Comparison(NamedTuple):
    """Two answers to one prompt, in the order in which a judge is shown them."""

    prompt_id: str
    messages: tuple[Message, ...]
    first: str
    second: str


class Verdict(NamedTuple):
    """What a judge said of a comparison."""

    prompt_id: str
    preference: float | None
    """Probability in [0, 1] that `second` is better; ½ is a tie; None where there is no verdict."""
    reason: str | None = None
    """Why there is none."""
