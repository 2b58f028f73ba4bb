"""Send one request to an OpenAI-compatible server, without retry, and classify its failure.

    TransientError   a retry may succeed: 408, 409, 429, 5xx, a timeout, no connection, no JSON
    CallError        this request is rejected, others may succeed (too long, moderated)
    JudgeError       no later request can succeed: the key, the model, the credit

Reasons and errors never contain the server's message, and no exception of the client is chained,
because they may quote the key, the address or the texts.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, cast

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from infra.judges.questions import Reply, Request
from pvar.errors import JudgeError

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI, OpenAIError
    from openai.types.chat import ChatCompletionMessageParam

_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}


class Usage(BaseModel):
    """Token counts reported by the server."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class Completion(NamedTuple):
    """The server's reply and its token counts (None if the server does not report them)."""

    reply: Reply
    usage: Usage | None


class CallError(Exception):
    """A failed call; `reason` becomes the reason of the missing verdict."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TransientError(CallError):
    """A failed call that may succeed on retry."""

    def __init__(self, reason: str, pause_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.pause_seconds = pause_seconds


class _Token(BaseModel):
    token: str
    logprob: FiniteFloat


class _Position(BaseModel):
    top_logprobs: list[_Token]


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Body(BaseModel):
    """The used parts of a chat completion."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Usage | None = None


def complete(client: "OpenAI", model: str, request: Request) -> Completion:
    """Send one request without retry. Raises TransientError, CallError or JudgeError."""
    from openai import OpenAIError, omit

    try:
        raw = client.chat.completions.with_raw_response.create(
            model=model,
            messages=cast(
                "list[ChatCompletionMessageParam]", [m._asdict() for m in request.messages]
            ),
            max_completion_tokens=request.max_tokens,
            temperature=request.temperature,
            logprobs=omit if request.top_logprobs is None else True,
            top_logprobs=omit if request.top_logprobs is None else request.top_logprobs,
        )
        return _completion(_Body.model_validate_json(raw.content))
    except ValidationError:
        failure: Exception = TransientError("unreadable_reply")
    except OpenAIError as error:
        failure = _failure(error, model)
    raise failure  # out here, so that no other exception is its context


def _completion(body: _Body) -> Completion:
    choice = body.choices[0]
    positions = (choice.logprobs.content if choice.logprobs else None) or []
    top = positions[0].top_logprobs if positions else []
    reply = Reply(
        text=choice.message.content or "",
        is_truncated=choice.finish_reason == "length",
        top_logprobs={token.token: token.logprob for token in top},
    )
    return Completion(reply, body.usage)


def _failure(error: "OpenAIError", model: str) -> Exception:
    from openai import APIStatusError, APITimeoutError

    match error:
        case APITimeoutError():
            return TransientError("timeout")
        case APIStatusError():
            return _refusal(error, model)
        case _:
            return TransientError("no_connection")


def _refusal(error: "APIStatusError", model: str) -> Exception:
    status = error.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        return JudgeError(
            "the judge's server does not accept the key (401); check PVAR_JUDGE_API_KEY"
        )
    if status == HTTPStatus.NOT_FOUND:
        return JudgeError(
            f"the judge's server has no model {model!r}, or is not a chat server (404); check the "
            "judge's `model` and PVAR_JUDGE_BASE_URL (it ends in /v1)"
        )
    if status == HTTPStatus.PAYMENT_REQUIRED or error.code == "insufficient_quota":
        return JudgeError(
            f"the account of PVAR_JUDGE_API_KEY has no credit left ({status}); add credit and run "
            "again"
        )
    reason = "rate_limited" if status == HTTPStatus.TOO_MANY_REQUESTS else f"http_{status}"
    if status in _AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientError(reason, retry_after(error.response.headers))
    return CallError(reason)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from the header Retry-After, which has seconds or a date (RFC 9110)."""
    header = headers.get("retry-after")
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
