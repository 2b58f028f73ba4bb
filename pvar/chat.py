"""Convert a conversation to token ids: the only module that renders chat templates.

Sampling, scoring and training all tokenise here, so a model gets the same ids everywhere: its own
chat template, applied once, directly to ids. Rendering to text and tokenising again would add a
second beginning-of-sequence token; templates that already write two are rejected.
Templates that ask for today's date (Llama 3's) get a fixed date, so that ids do not change daily.

Some templates refuse some conversations (a system message, two turns of one role). That is a
`ChatTemplateError` that names the prompt, for the caller to leave out its row.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Protocol

from pvar.digest import prompt_id
from pvar.errors import ChatTemplateError, ModelError
from pvar.records import Message

TEMPLATE_DATE = date(2024, 7, 26)
"""Date passed to templates as today: the fallback date of Llama 3's own template."""

_TODAY = "strftime_now"
"""The function by which templates ask for today's date."""


def _fixed_date() -> str:
    """A Jinja macro in the place of that function, which writes nothing itself.

    transformers gives templates plain data only (since 5.24), so the parts of the date are filled
    in by their directives. `+%}` keeps a newline at the beginning of the template.
    """
    names = ("-d", "-m", "-j", "-I", "-H", "-M", "-S", *"aAbBdeFHIjmMpSuUVwWyYxXcD")
    parts = "".join(
        f".replace('%{name}', '{TEMPLATE_DATE.strftime(f'%{name}')}')" for name in names
    )
    return f"{{% macro {_TODAY}(format) %}}{{{{ format{parts} }}}}{{% endmacro +%}}"


_FIXED_DATE = _fixed_date()

MIN_CHARACTERS_PER_TOKEN = 8
"""Of the longest token of any vocabulary: for shorter texts it is not looked up."""

PROBE = "probe"
"""A test answer, whose position in the rendered conversation shows how the template ends it."""


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: Any

    @property
    def added_tokens_decoder(self) -> Any:
        """Added tokens by id; `special` marks control tokens."""
        ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a conversation."""
        ...

    def encode(self, text: Any, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Tokens and their ids."""
        ...


def is_surely_longer(tokenizer: ChatTokenizer, texts: Iterable[str], max_tokens: int) -> bool:
    """Whether texts have more tokens than that, without making them.

    No token stands for more characters than the longest of the vocabulary has. To tokenise a prompt
    with an inlined picture takes a hundred times its memory, to be rejected then for its length.
    """
    num_characters = sum(map(len, texts))
    if num_characters <= MIN_CHARACTERS_PER_TOKEN * max_tokens:  # of most prompts
        return False
    return num_characters > max_tokens * max(map(len, tokenizer.get_vocab()))


def prompt_token_ids(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Ids of a conversation up to the start of the assistant's answer.

    Raises ChatTemplateError if the template refuses it.
    """
    return _token_ids(tokenizer, messages, add_generation_prompt=True)


def conversation_token_ids(
    tokenizer: ChatTokenizer, messages: Sequence[Message], response: str
) -> list[int]:
    """Ids of a conversation together with the assistant's answer, as reward models read it.

    Raises ChatTemplateError if the template refuses it.
    """
    answered = [*messages, Message("assistant", response)]
    return _token_ids(tokenizer, answered, add_generation_prompt=False)


def answer_token_ids(tokenizer: ChatTokenizer, response: str, end: Sequence[int]) -> list[int]:
    """Ids of an answer as the model generates it after `prompt_token_ids`, including its end.

    `end` is the result of `end_token_ids`, or empty for a truncated answer, which has no end to
    learn. An answer that already contains its end does not get a second one.
    """
    ids = tokenizer.encode(response, add_special_tokens=False)
    while end and ids[-len(end) :] == list(end):
        ids = ids[: -len(end)]
    return [*ids, *end]


def end_token_ids(tokenizer: ChatTokenizer) -> list[int]:
    """The end of an answer: what the template writes after it, up to the end-of-turn token.

    Text after that token (a newline, in most templates) is never generated, so it is left out.
    If the template writes no such token, the end-of-sequence token is used. Raises ModelError if
    there is neither.
    """
    conversation = [Message("user", "?"), Message("assistant", PROBE)]
    try:
        text: str = _render(tokenizer, conversation, add_generation_prompt=False, tokenize=False)
    except ChatTemplateError as error:  # it names a prompt, and this one is of no user
        raise ModelError(
            "the model's chat template does not render one question with its answer "
            f"({error.__cause__}); use another model or template"
        ) from error
    tail = tokenizer.encode(text.rpartition(PROBE)[2], add_special_tokens=False)
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    ends = [place for place, id_ in enumerate(tail) if id_ in special | {tokenizer.eos_token_id}]
    if ends:
        return tail[: ends[0] + 1]
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "neither the chat template nor the tokenizer has an end-of-turn or end-of-sequence "
            "token; set eos_token in tokenizer_config.json"
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
    template = tokenizer.chat_template
    if isinstance(template, Mapping):  # named ones, of which transformers takes this
        template = template.get("default")
    if isinstance(template, str) and _TODAY in template:
        options["chat_template"] = _FIXED_DATE + template
    try:
        return tokenizer.apply_chat_template([message._asdict() for message in messages], **options)
    except Exception as error:  # of Jinja, which this package does not import
        if not _is_of_template(error):
            raise
        asked = messages[:-1] if messages[-1].role == "assistant" else messages
        raise ChatTemplateError(
            f"prompt {prompt_id(asked)}: the model's chat template refuses its conversation (roles "
            f"{', '.join(message.role for message in messages)}; {type(error).__name__}: {error}); "
            "change or remove the prompt, or use another model or template"
        ) from error


def _is_of_template(error: Exception) -> bool:
    """Whether Jinja raised it."""
    return any(kind.__module__.partition(".")[0] == "jinja2" for kind in type(error).__mro__)
