"""Send one request to an OpenAI-compatible server, without retry, and classify its failure.

    TransientError   a retry may succeed: 408, 409, 429, 5xx, a timeout, no connection, no JSON
    RefusalError     the server refuses this request; whether it refuses all, the caller finds out
    JudgeError       no later request can succeed: the key, the model, the credit

The server's words are repeated without the key, the address and the texts
(`infra/judges/redaction.py`). No exception of the client is chained, because it quotes them.

Of a reply only what is needed must be there: a count or a name that is absent or malformed is None.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    FiniteFloat,
    NonNegativeInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from infra.judges.questions import Reply, Request
from infra.judges.refusals import (
    Refusal,
    is_of_one_call,
    refusal_message,
    refused_parameter,
    words_of_server,
)
from pvar.errors import JudgeError
from pvar.thought import spoken

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI, OpenAIError

_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}


def or_none(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
    """Read a part of a reply that is not needed: None if it has another form."""
    try:
        return handler(value)
    except ValidationError:
        return None


_Count = Annotated[NonNegativeInt | None, WrapValidator(or_none)]
_Text = Annotated[str | None, WrapValidator(or_none)]


class _Details(BaseModel):
    reasoning_tokens: _Count = None


class Usage(BaseModel):
    """Token counts reported by the server; None is unknown."""

    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    completion_tokens_details: Annotated[_Details | None, WrapValidator(or_none)] = None

    @property
    def is_thought(self) -> bool:
        """Whether all that was generated is thought."""
        tokens = self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens
        return bool(tokens) and tokens == self.completion_tokens


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


class RefusalError(CallError):
    """A call that the server refuses; a retry of the same request is refused again."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"http_{refusal.status}")
        self.refusal = refusal


class Dialect(NamedTuple):
    """Which parameters are sent; learned from what the server refuses."""

    length_parameter: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """Older servers know `max_tokens` only."""
    sends_logprobs: bool = True
    """False for a server that refuses `logprobs`."""

    def after(self, refusal: Refusal) -> "Dialect":
        """How to ask again after a refusal; the same dialect if nothing else can be tried."""
        match refusal.parameter:
            case "max_completion_tokens" if not refusal.is_about_the_value:
                return self._replace(length_parameter="max_tokens")
            case "logprobs" | "top_logprobs":
                return self._replace(sends_logprobs=False)
            case _:
                return self


NEWEST = Dialect()
"""That of OpenAI and vLLM."""


class _Token(BaseModel):
    token: str
    logprob: FiniteFloat


class _Position(BaseModel):
    top_logprobs: list[_Token] | None = None


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: object = None
    reasoning_content: object = None
    reasoning: object = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: _Text = None
    logprobs: Annotated[_Logprobs | None, WrapValidator(or_none)] = None


class _Body(BaseModel):
    """The used parts of a chat completion."""

    choices: list[Annotated[_Choice | None, WrapValidator(or_none)]]
    """None is one that cannot be read."""
    usage: Annotated[Usage | None, WrapValidator(or_none)] = None
    model: _Text = None
    system_fingerprint: _Text = None

    @field_validator("choices", mode="after")
    @classmethod
    def _readable(cls, choices: list[_Choice | None]) -> list[_Choice | None]:
        """One choice was asked for; what a server gives beyond the first readable one is unused."""
        readable = [choice for choice in choices if choice is not None]
        if not readable:
            raise ValueError("there is no readable choice")
        return list(readable[:1])


def complete(
    client: "OpenAI",
    model: str,
    request: Request,
    dialect: Dialect = NEWEST,
    texts: Iterable[str] = (),
) -> Completion:
    """Send one request without retry. Raises TransientError, RefusalError or JudgeError.

    `texts` are parts of the question that the server's words must not repeat, besides the messages.
    """
    from httpx import Response
    from openai import OpenAIError

    body: dict[str, object] = {
        "model": model,
        "messages": [message._asdict() for message in request.messages],
        dialect.length_parameter: request.max_tokens,
        "temperature": request.temperature,
    }
    if request.top_logprobs is not None and dialect.sends_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    try:
        # Not `chat.completions.create`, which takes as long to look through its parameters.
        raw = client.post("/chat/completions", body=body, cast_to=Response)
        return read_completion(raw.content)
    except ValidationError:
        failure: Exception = TransientError("unreadable_reply")
    except OpenAIError as error:
        private = (*(message.content for message in request.messages), *texts)
        failure = failure_of(error, lambda status: _refusal(status, model, client, private))
    raise failure  # out here, so that no other exception is its context


def read_completion(content: bytes) -> Completion:
    """Read the JSON of a chat completion. ValidationError if it has no readable choice."""
    body = _Body.model_validate_json(content)
    (choice,) = body.choices
    assert choice is not None
    text, has_thought = spoken(choice.message.content)
    positions = (choice.logprobs.content if choice.logprobs else None) or []
    top = (positions[0].top_logprobs if positions else None) or []
    reply = Reply(
        text=text,
        is_truncated=choice.finish_reason == "length",
        top_logprobs={token.token: token.logprob for token in top},
        has_thought=bool(
            has_thought
            or choice.message.reasoning_content
            or choice.message.reasoning
            or (body.usage and body.usage.is_thought)
        ),
        served_model=body.model or None,
        system_fingerprint=body.system_fingerprint or None,
    )
    return Completion(reply, body.usage)


def failure_of(error: "OpenAIError", refusal: "Callable[[APIStatusError], Exception]") -> Exception:
    """What an error of the client means; `refusal` says it of an answer with an error's status."""
    from openai import APIStatusError, APITimeoutError

    match error:
        case APITimeoutError():
            return TransientError("timeout")
        case APIStatusError():
            return refusal(error)
        case _:
            return TransientError("no_connection")


def _refusal(
    error: "APIStatusError", model: str, client: "OpenAI", texts: Iterable[str]
) -> Exception:
    status = error.status_code
    message = refusal_message(error.body)
    words = words_of_server(message, client, texts)
    said = f": {words}" if words else ""
    if status == HTTPStatus.UNAUTHORIZED:
        return JudgeError(
            f"the judge's server does not accept the key (401{said}); check PVAR_JUDGE_API_KEY"
        )
    if status == HTTPStatus.NOT_FOUND:
        return JudgeError(
            f"the judge's server has no model {model!r}, or is not a chat server (404{said}); "
            "check the judge's `model` and PVAR_JUDGE_BASE_URL (it ends in /v1)"
        )
    if status == HTTPStatus.PAYMENT_REQUIRED or error.code == "insufficient_quota":
        return JudgeError(
            f"the account of PVAR_JUDGE_API_KEY has no credit left ({status}{said}); add credit "
            "and run again"
        )
    reason = "rate_limited" if status == HTTPStatus.TOO_MANY_REQUESTS else f"http_{status}"
    if is_transient(status):
        return TransientError(reason, retry_after(error.response.headers))
    parameter = refused_parameter(error.body, message)
    of_one_call = is_of_one_call(status, error.code, parameter, message)
    return RefusalError(Refusal(status, words, parameter, of_one_call))


def is_transient(status: int) -> bool:
    """Whether a retry may succeed after this status."""
    return status in _AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from the header Retry-After, which has seconds or a date (RFC 9110).

    A date is compared with the answer's own (header Date), because the server's clock may differ
    from this machine's.
    """
    header = headers.get("retry-after")
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    moment, now = _date(header), _date(headers.get("date", ""))
    if moment is None:
        return None
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _date(header: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
