"""From a conversation to token ids: the one place where chat templates are rendered.

Sampling, scoring and training all tokenise here, so a model sees the same ids everywhere: its own
chat template, applied once, straight to ids. Rendering to text and tokenising again would add a
second beginning-of-sequence token (PITFALLS 3); templates that already write one twice are refused.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from pvar.errors import ModelError
from pvar.records import Message


class ChatTokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a conversation."""
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


def _token_ids(
    tokenizer: ChatTokenizer, messages: Sequence[Message], *, add_generation_prompt: bool
) -> list[int]:
    if tokenizer.chat_template is None:
        raise ModelError(
            "the model's tokenizer has no chat template, so its conversation format is unknown; "
            "use an instruction-tuned model, or add chat_template.jinja to its folder"
        )
    ids: list[int] = tokenizer.apply_chat_template(
        [message._asdict() for message in messages],
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
