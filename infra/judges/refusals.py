"""What a server says when it refuses a call: its words, the parameter, and what to change.

Servers word refusals in several ways:

    OpenAI, vLLM    {"error": {"message": …, "param": "temperature", "code": …}}
    FastAPI         {"detail": [{"loc": ["body", "temperature"], "msg": …}]}  or  {"detail": "…"}
    TEI             {"error": "…", "error_type": "Validation"}
    proxies         {"message": …}, plain text, HTML

A refusal that is about one comparison (too long, moderated) is told from one that every call meets.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from infra.judges.access import NO_KEY
from infra.judges.redaction import redact
from pvar.judging import Identity

if TYPE_CHECKING:
    from openai import OpenAI

LENGTH = 300
"""Most characters of the server's words that are repeated."""

_PARAMETER = re.compile(
    r"\b(max_completion_tokens|max_tokens|top_logprobs|logprobs|temperature|response_format"
    r"|response format)\b",
    re.IGNORECASE,
)
_OF_ONE_CALL = re.compile(
    r"context[_ ](length|window|size)|too long|maximum (context|length|model length)|max_model_len"
    r"|must have less than [0-9]+ (tokens|characters)"
    r"|exceeds? the (model|context|limit)|content[_ ](filter|policy|management)"
    r"|moderat|flagged|safety|usage polic|inappropriate",
    re.IGNORECASE,
)
_ABOUT_THE_VALUE = re.compile(
    r"too (large|small|high|low|long)|at (least|most)|greater|less than|maximum|minimum|exceed"
    r"|limit was reached",
    re.IGNORECASE,
)


def words_of_server(message: str, client: "OpenAI", texts: Iterable[str]) -> str:
    """What a server said, without the client's key and address and without these texts."""
    return redact(
        message,
        key="" if client.api_key == NO_KEY else client.api_key,
        base_url=str(client.base_url),
        texts=texts,
        length=LENGTH,
    )


class Refusal(NamedTuple):
    """A server's refusal, without key, address and texts."""

    status: int
    words: str
    """The server's message, shortened; empty if it sent none."""
    parameter: str | None
    """Parameter of the request that the server names."""
    is_of_one_call: bool
    """Whether it is about this comparison's texts: too long, or moderated."""

    @property
    def kind(self) -> str:
        """Equal for refusals for one reason: the words without their numbers."""
        return f"http_{self.status} {self.parameter or re.sub(r'[0-9]+', '#', self.words)}"

    @property
    def is_about_the_value(self) -> bool:
        """Whether the server knows the parameter, but not this value of it."""
        return bool(_ABOUT_THE_VALUE.search(self.words))


def refusal_message(body: object) -> str:
    """The server's message in a response's body: JSON, or a text."""
    match body:
        case {"error": dict() as inner}:
            return refusal_message(inner)
        case {"message": str(message)} | {"error": str(message)} | {"detail": str(message)}:
            return message
        case {"detail": list() as details}:
            return "; ".join(filter(None, map(_detail, details)))
        case str():
            return body
        case _:
            return ""


def _detail(detail: object) -> str:
    match detail:
        case {"loc": list() as place, "msg": str(message)}:  # its `input` is the request
            return f"{'.'.join(map(str, place))}: {message}"
        case {"msg": str(message)} | str(message):
            return message
        case _:
            return ""


def refused_parameter(
    body: object, message: str, known: re.Pattern[str] = _PARAMETER
) -> str | None:
    """The known parameter that the server names, in its field or else first in its message."""
    match body:
        case {"param": str(name)} | {"error": {"param": str(name)}}:
            found = known.search(name) or known.search(message)
        case _:
            found = known.search(message)
    return found[0].lower().replace(" ", "_") if found else None


def is_of_one_call(status: int, code: str | None, parameter: str | None, message: str) -> bool:
    """Whether another comparison may well be accepted."""
    if parameter not in (None, "max_tokens", "max_completion_tokens"):
        return False
    return status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or bool(
        _OF_ONE_CALL.search(f"{code or ''} {message}")
    )


def what_to_change(parameter: str | None, judge: Identity) -> str:
    """What to change in the configuration of a judge, all of whose calls are refused."""
    is_token = judge.get("kind") == "alpaca_eval"
    match parameter:
        case "max_completion_tokens" | "max_tokens" if is_token:
            return (
                "kind alpaca_eval asks for one token; change the judge's `model` to one that may "
                "answer with one, or its `kind` to arena_hard"
            )
        case "max_completion_tokens" | "max_tokens":
            return f"change the judge's `max_tokens` (now {judge.get('max_tokens')})"
        case "temperature" if is_token:
            return (
                f"kind alpaca_eval sends temperature {judge.get('temperature')}; change the "
                "judge's `model`, or its `kind` to arena_hard, which has a `temperature`"
            )
        case "temperature":
            return f"change the judge's `temperature` (now {judge.get('temperature')})"
        case "logprobs" | "top_logprobs":
            return "change the judge's `kind` to arena_hard, which needs no logprobs"
        case _:
            about = f"the server names {parameter}; " if parameter else ""
            return f"{about}check the judge's `model` and PVAR_JUDGE_BASE_URL"
