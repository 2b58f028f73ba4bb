"""Shared by all engines that have the policy's tokenizer: prompts to ids, and ids to responses.

Prompts are rendered by the model's own chat template, directly to ids (`pvar/chat.py`), so that all
engines send a model the same ids, with exactly one beginning-of-sequence token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pvar.chat import is_surely_longer, prompt_token_ids
from pvar.digest import response_id
from pvar.errors import ChatTemplateError
from pvar.ports import Rejection, SampleRequest
from pvar.records import FinishReason, Response
from pvar.sampler_config import SamplerSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EncodedPrompts(NamedTuple):
    """A prompt as token ids."""

    prompt_id: str
    token_ids: list[int]


@dataclass(frozen=True)
class ChatFormat:
    """A policy's chat template, end tokens and limits."""

    tokenizer: "PreTrainedTokenizerBase"
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    max_prompt_tokens: int
    """Maximum prompt length, by the settings and the model's context. Longer ones are rejected."""

    def encode(
        self, requests: Sequence[SampleRequest]
    ) -> tuple[list[EncodedPrompts], list[Rejection]]:
        """Ids of each prompt, and rejections of those that are too long or fail in the template."""
        encoded, rejections = [], []
        for request in requests:
            texts = (message.content for message in request.messages)
            if is_surely_longer(self.tokenizer, texts, self.max_prompt_tokens):
                rejections.append(Rejection(request.prompt_id, "prompt_too_long"))
                continue
            try:
                ids = prompt_token_ids(self.tokenizer, request.messages)
            except (
                ChatTemplateError
            ):  # some templates know no system message, or want turns to change
                rejections.append(Rejection(request.prompt_id, "refused_by_chat_template"))
                continue
            if len(ids) > self.max_prompt_tokens:
                rejections.append(Rejection(request.prompt_id, "prompt_too_long"))
            else:
                encoded.append(EncodedPrompts(request.prompt_id, ids))
        return encoded, rejections

    def response(self, prompt_id: str, index: int, token_ids: Sequence[int]) -> Response:
        """The answer with these ids, including the end token; without one it is truncated."""
        ended = bool(token_ids) and token_ids[-1] in self.end_ids
        finish: FinishReason = "stop" if ended else "length" if token_ids else "error"
        text = str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()
        return Response(
            prompt_id, response_id(prompt_id, index, text), index, text, len(token_ids), finish
        )


def load_chat_format(folder: Path, settings: SamplerSettings) -> ChatFormat:
    """Load the tokenizer, and the end tokens and context length of the model's configuration."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if (folder / "generation_config.json").exists():
        generation = GenerationConfig.from_pretrained(folder)
    else:
        generation = GenerationConfig.from_model_config(config)
    configured = generation.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    limit = settings.max_prompt_tokens
    if context is not None:
        limit = min(limit, context - settings.max_new_tokens)
    return ChatFormat(
        tokenizer,
        frozenset(token for token in (*ends, tokenizer.eos_token_id) if token is not None),
        limit,
    )
