"""From a conversation to token ids: the one place where chat templates are rendered.

Sampling, scoring and training all tokenise here, so a model sees the same ids everywhere: its own
chat template, applied once, straight to ids. Rendering to text and tokenising again would add a
second beginning-of-sequence token; templates that already write one twice are refused.
Templates that ask for today's date (Llama 3's) are given a fixed one: ids do not change overnight.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Protocol

from pvar.errors import ModelError
from pvar.records import Message

TEMPLATE_DATE = date(2024, 7, 26)
"""What templates are told is today: the date that Llama 3's own falls back to."""

PROBE = "probe"
"""An answer whose place in a rendered conversation shows how the template ends one."""


class ChatTokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: Any

    @property
    def added_tokens_decoder(self) -> Any:
        """Added tokens by id; `special` is true of those that are no text."""
        ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a conversation."""
        ...

    def encode(self, text: Any, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text."""
        ...


def prompt_token_ids(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation up to where the assistant's answer begins."""
    return _token_ids(tokenizer, messages, add_generation_prompt=True)


def conversation_token_ids(
    tokenizer: ChatTokenizer, messages: Sequence[Message], response: str
) -> list[int]:
    """Ids of a conversation together with the assistant's answer, as reward models read it."""
    answered = [*messages, Message("assistant", response)]
    return _token_ids(tokenizer, answered, add_generation_prompt=False)


def answer_token_ids(tokenizer: ChatTokenizer, response: str, end: Sequence[int]) -> list[int]:
    """Ids of an answer as the model writes it behind `prompt_token_ids`, and how it ends.

    `end` is what `end_token_ids` gives, or empty for an answer that was cut off when it was
    sampled: such an answer has no end to learn. An answer that brings its own end gets no second.
    """
    ids = tokenizer.encode(response, add_special_tokens=False)
    while end and ids[-len(end) :] == list(end):
        ids = ids[: -len(end)]
    return [*ids, *end]


def end_token_ids(tokenizer: ChatTokenizer) -> list[int]:
    """How an answer ends: what the template writes after it, up to the token that ends a turn.

    What follows that token (a newline, in most templates) is never generated, so it is left out.
    A template that writes no such token is completed by the end-of-sequence token. Raises
    ModelError where there is neither.
    """
    conversation = [Message("user", "?"), Message("assistant", PROBE)]
    text: str = _render(tokenizer, conversation, add_generation_prompt=False, tokenize=False)
    tail = tokenizer.encode(text.rpartition(PROBE)[2], add_special_tokens=False)
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [place for place, id_ in enumerate(tail) if id_ in special | {tokenizer.eos_token_id}]
    if ends:
        return tail[: ends[0] + 1]
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "neither the chat template nor the tokenizer has a token that ends an answer; set "
            "eos_token in tokenizer_config.json"
        )
    return [*tail, tokenizer.eos_token_id]


def _token_ids(
    tokenizer: ChatTokenizer, messages: Sequence[Message], *, add_generation_prompt: bool
) -> list[int]:
    ids: list[int] = _render(
        tokenizer,
        messages,
        add_generation_prompt=add_generation_prompt,
        tokenize=True,
        return_dict=False,
    )
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        raise ModelError(
            f"the chat template writes the beginning-of-sequence token (id {bos}) twice; remove it "
            "from the template or from the tokenizer's post-processor"
        )
    return ids


def _render(tokenizer: ChatTokenizer, messages: Sequence[Message], **options: Any) -> Any:
    if tokenizer.chat_template is None:
        raise ModelError(
            "the model's tokenizer has no chat template, so its conversation format is unknown; "
            "use an instruction-tuned model, or add chat_template.jinja to its folder"
        )
    return tokenizer.apply_chat_template(
        [message._asdict() for message in messages],
        strftime_now=TEMPLATE_DATE.strftime,
        **options,
    )
