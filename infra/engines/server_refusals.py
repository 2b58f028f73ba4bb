"""What a policy's server says when it refuses a request, and what to change.

A refusal that is about one prompt (too long, moderated) rejects the prompt. One that every request
meets, such as a parameter that the server does not know, ends the stage after the first ones.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from infra.judges.health import DeadEnd
from infra.judges.refusals import (
    Refusal,
    is_of_one_call,
    refusal_message,
    refused_parameter,
    words_of_server,
)
from pvar.sampler_config import SamplerSettings

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

_PARAMETERS = re.compile(
    r"\b(max_tokens|temperature|top_p|top_k|min_p|repetition_penalty|seed|return_token_ids"
    r"|stop_token_ids)\b|^n$",
    re.IGNORECASE,
)
_SETTINGS = {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p"}
"""Parameter of a request → setting of the sampler."""


def read_refusal(error: "APIStatusError", client: "OpenAI", texts: Iterable[str]) -> Refusal:
    """The refusal, in the server's words without the key, the address and these texts."""
    message = refusal_message(error.body)
    words = words_of_server(message, client, texts)
    # In the words without the prompt, which may be about planting a seed.
    parameter = refused_parameter(error.body, words, _PARAMETERS)
    of_one_call = is_of_one_call(error.status_code, error.code, parameter, message)
    return Refusal(error.status_code, words, parameter, of_one_call)


def shared_refusal(refusal: Refusal, settings: SamplerSettings) -> DeadEnd | None:
    """A refusal that is not about one prompt's text, and what to change."""
    if refusal.is_of_one_call:
        return None
    said = f": {refusal.words}" if refusal.words else ""
    return DeadEnd(
        refusal.kind,
        f"the policy's server refuses the requests ({refusal.status}{said}); "
        f"{_what_to_change(refusal.parameter, settings)}",
        is_certain=refusal.parameter is not None,
    )


def _what_to_change(parameter: str | None, settings: SamplerSettings) -> str:
    match parameter:
        case "max_tokens" | "temperature" | "top_p":
            name = _SETTINGS[parameter]
            return f"change the sampler's `{name}` (now {getattr(settings, name)})"
        case "seed":
            return "set PVAR_SAMPLER_SEEDS=false to send no seeds"
        case None:
            return (
                "it must take token ids as prompts of /v1/completions, as `vllm serve` does: check "
                "PVAR_SAMPLER_BASE_URL"
            )
        case other:
            return f"it does not take {other}, which `vllm serve` does: use that server"
