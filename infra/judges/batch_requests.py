"""Requests of a batch: what is sent as JSON lines, and what comes back.

A batch answers only when it is complete, while `Questions.put` asks and reads in one go. So `put`
is replayed: with the replies so far, it either gives its reading or asks for one reply more. This
fits any way to ask, one with a second question too, if `put` depends on nothing else.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ValidationError, WrapValidator

from infra.judges.calls import Completion, is_transient, or_none, read_completion
from infra.judges.questions import Questions, Reading, Reply, Request
from infra.judges.refusals import is_of_one_call, refusal_message, refused_parameter
from pvar.digest import digest
from pvar.records import Comparison

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"

_SAFE_CODE = re.compile(r"[a-z_]{1,60}")
"""Error codes that are words. Others may quote a key or a text."""


class BatchLimits(NamedTuple):
    """What one batch may hold."""

    max_requests: int = 50_000
    max_bytes: int = 100_000_000


USUAL_LIMITS = BatchLimits()


class BatchRequest(NamedTuple):
    """One line of a batch's input file."""

    custom_id: str
    """Digest of model, messages and sampling parameters: the same request has the same id."""
    line: bytes


class BatchReply(NamedTuple):
    """One line of a batch's output or error file."""

    custom_id: str
    completion: Completion | None
    reason: str | None = None
    """Why there is no completion."""
    message: str = ""
    """The server's words about it, which may quote secrets and texts."""
    refused: "Refused | None" = None
    """Set if the server refused the request itself."""


class Refused(NamedTuple):
    """What is known of a refused request."""

    status: int
    parameter: str | None
    """Parameter of the request that the server names."""
    is_of_one_call: bool


class _Response(BaseModel):
    status_code: int = HTTPStatus.OK
    """Some servers give a body alone."""
    body: object = None


class _Error(BaseModel):
    code: Annotated[str | None, WrapValidator(or_none)] = None
    message: Annotated[str | None, WrapValidator(or_none)] = None


class _Line(BaseModel):
    """The used parts of an output line."""

    custom_id: str
    response: Annotated[_Response | None, WrapValidator(or_none)] = None
    error: Annotated[_Error | None, WrapValidator(or_none)] = None


class _UnansweredError(Exception):
    """`put` asked for a reply that is not there yet."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


def next_step(
    questions: Questions, comparison: Comparison, replies: Sequence[Reply]
) -> Request | Reading:
    """The reading after these replies, or the request for the next one."""
    left = iter(replies)

    def ask(request: Request) -> Reply:
        reply = next(left, None)
        if reply is None:
            raise _UnansweredError(request)
        return reply

    try:
        return questions.put(comparison, ask)
    except _UnansweredError as question:
        return question.request


def batch_request(model: str, request: Request) -> BatchRequest:
    """The line of a request; its body is what a live call sends."""
    body: dict[str, str | int | float | bool | list[dict[str, str]]] = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "max_completion_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    custom_id = digest(body, length=32)
    line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
    return BatchRequest(custom_id, json.dumps(line).encode() + b"\n")


def split_requests(
    requests: Iterable[BatchRequest], limits: BatchLimits
) -> Iterator[list[BatchRequest]]:
    """Batches within the limits, in order. A request that is too large is a batch of its own."""
    batch: list[BatchRequest] = []
    num_bytes = 0
    for request in requests:
        is_full = num_bytes + len(request.line) > limits.max_bytes
        if batch and (is_full or len(batch) == limits.max_requests):
            yield batch
            batch, num_bytes = [], 0
        batch.append(request)
        num_bytes += len(request.line)
    if batch:
        yield batch


def read_reply(line: bytes) -> BatchReply | None:
    """The reply in an output line; None for a line that is damaged."""
    try:
        parsed = _Line.model_validate_json(line)
    except ValidationError:
        return None
    if parsed.response is None or parsed.response.status_code != HTTPStatus.OK:
        message = _message(parsed)
        return BatchReply(
            parsed.custom_id, None, _reason(parsed), message, _refused(parsed.response, message)
        )
    body = json.dumps(parsed.response.body).encode()
    try:
        return BatchReply(parsed.custom_id, read_completion(body))
    except ValidationError:
        return BatchReply(parsed.custom_id, None, "unreadable_reply")


def safe_code(code: str | None) -> str | None:
    """The server's error code if it is a word that can be shown."""
    return code if code is not None and _SAFE_CODE.fullmatch(code) else None


def _reason(line: _Line) -> str:
    """As for a live call, or the error's code (batch_expired)."""
    if line.response is not None:
        status = line.response.status_code
        return "rate_limited" if status == 429 else f"http_{status}"
    return safe_code(line.error.code if line.error else None) or "request_failed"


def _refused(response: _Response | None, message: str) -> Refused | None:
    if response is None or is_transient(response.status_code):
        return None
    code: str | None = None
    match response.body:
        case {"error": {"code": str(name)}} | {"code": str(name)}:
            code = name
    status, parameter = response.status_code, refused_parameter(response.body, message)
    return Refused(status, parameter, is_of_one_call(status, code, parameter, message))


def _message(line: _Line) -> str:
    if line.response is not None:
        return refusal_message(line.response.body)
    return (line.error.message if line.error else None) or ""
