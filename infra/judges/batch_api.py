"""The batch API of an OpenAI-compatible server: files and batches, with retries.

    TransientError   the server does not answer, after all attempts: a later run may succeed
    JudgeError       no later attempt can succeed: the key, a server without batches, a lost batch

As in `infra/judges/calls.py`, the server's words are repeated without the key, the address and the
texts, and no exception of the client is chained.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError, WrapValidator

from infra.judges.batch_requests import ENDPOINT, BatchRequest, safe_code
from infra.judges.calls import TransientError, is_transient, or_none, retry_after
from infra.judges.refusals import refusal_message, words_of_server
from infra.judges.retry_policy import RetryPolicy, with_retries
from pvar.errors import JudgeError

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

_log = logging.getLogger(__name__)

SUBMISSION = "pvar_submission"
"""Key of a batch's metadata."""

_LOOKED_THROUGH = 1000
"""The newest batches of the account, among which a lost submission is looked for."""

_NOT_THERE = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}
_ENDS = ("completed", "failed", "expired", "cancelled")

Result = TypeVar("Result")


_Text = Annotated[str | None, WrapValidator(or_none)]


class RequestCounts(BaseModel):
    """How far a batch is."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class _Fault(BaseModel):
    code: _Text = None
    message: _Text = None


class _Faults(BaseModel):
    data: list[_Fault] | None = None


class BatchState(BaseModel):
    """The used parts of a batch."""

    id: str = Field(min_length=1)
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: Annotated[RequestCounts | None, WrapValidator(or_none)] = None
    errors: Annotated[_Faults | None, WrapValidator(or_none)] = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be answered."""
        return self.status in _ENDS

    @property
    def message(self) -> str:
        """The server's words about a batch that failed, which may quote secrets and texts."""
        faults = (self.errors.data if self.errors else None) or []
        return "; ".join(fault.message for fault in faults if fault.message)

    @property
    def reason(self) -> str:
        """Why a request without an output line has no verdict."""
        if self.status == "completed":
            return "no_reply"
        faults = (self.errors.data if self.errors else None) or []
        codes = (safe_code(fault.code) for fault in faults)
        return next((f"batch_failed: {code}" for code in codes if code), f"batch_{self.status}")


class _Id(BaseModel):
    id: str = Field(min_length=1)


@dataclass(frozen=True)
class BatchApi:
    """Files and batches of one server."""

    client: "OpenAI"
    retry_policy: RetryPolicy
    over: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for the answers any more."""

    def upload(
        self, requests: Sequence[BatchRequest], texts: Callable[[], Iterable[str]] = tuple
    ) -> str:
        """The id of a new input file; `texts` are what the requests ask about."""
        with TemporaryFile() as file:
            file.writelines(request.line for request in requests)

            def send() -> str:
                file.seek(0)
                raw = self.client.files.with_raw_response.create(
                    file=("requests.jsonl", file, "application/jsonl"), purpose="batch"
                )
                return _Id.model_validate_json(raw.content).id

            return self._send(send, _no_api("takes no files"), texts)

    def create(self, file_id: str, submission: str) -> str:
        """The id of a new batch. An attempt after a failed one looks for the batch first."""
        attempts: list[str] = []

        def send() -> str:
            earlier = self._find(submission) if attempts else None
            if earlier is not None:
                return earlier
            attempts.append(submission)
            raw = self.client.batches.with_raw_response.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={SUBMISSION: submission},
            )
            return BatchState.model_validate_json(raw.content).id

        return self._send(send, _no_api("has no batches"))

    def find(self, submission: str) -> str | None:
        """The id of the batch with this name in its metadata; None if there is none."""
        return self._send(lambda: self._find(submission), _no_api("has no batches"))

    def state(self, batch_id: str, record_key: str) -> BatchState:
        """The batch as it is now."""

        def send() -> BatchState:
            raw = self.client.batches.with_raw_response.retrieve(batch_id)
            return BatchState.model_validate_json(raw.content)

        return self._send(send, _lost("the batch", record_key))

    def lines(self, file_id: str, record_key: str) -> Iterator[bytes]:
        """The lines of an output or error file, which may be large."""
        with TemporaryFile() as file:
            self._send(lambda: self._download(file_id, file), _lost("a file of", record_key))
            file.seek(0)
            yield from file

    def redacted(self, message: str, texts: Iterable[str]) -> str:
        """The server's words without the key, the address and these texts."""
        return words_of_server(message, self.client, texts)

    def _download(self, file_id: str, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        try:
            with self.client.files.with_streaming_response.content(file_id) as response:
                for chunk in response.iter_bytes():
                    file.write(chunk)
            return
        except _http_errors():
            failure = TransientError("no_connection")
        raise failure

    def _find(self, submission: str) -> str | None:
        from openai import APIStatusError

        try:
            for batch in islice(self.client.batches.list(limit=100), _LOOKED_THROUGH):
                if (batch.metadata or {}).get(SUBMISSION) == submission:
                    return batch.id
        except APIStatusError as error:
            if error.status_code not in _NOT_THERE:
                raise
            _log.warning("the judge's server lists no batches: a lost submission is repeated")
        return None

    def _send(
        self,
        send: Callable[[], Result],
        not_there: str,
        texts: Callable[[], Iterable[str]] = tuple,
    ) -> Result:
        """The result of `send`, with retries; JudgeError(not_there) if there is no such thing.

        `texts` were sent, and the server's words must not repeat them.
        """
        return with_retries(
            lambda: self._attempt(send, not_there, texts), self.retry_policy, self.over
        )

    def _attempt(
        self, send: Callable[[], Result], not_there: str, texts: Callable[[], Iterable[str]]
    ) -> Result:
        from openai import APIStatusError, OpenAIError

        try:
            return send()
        except ValidationError:
            failure: Exception = TransientError("unreadable_reply")
        except APIStatusError as error:
            words = self.redacted(refusal_message(error.body), texts())
            failure = _refusal(error, not_there, f": {words}" if words else "")
        except OpenAIError:
            failure = TransientError("no_connection")
        raise failure  # out here, so that no other exception is its context


def _refusal(error: "APIStatusError", not_there: str, said: str) -> Exception:
    status = error.status_code
    if status in _NOT_THERE:
        return JudgeError(not_there)
    if error.code == "insufficient_quota" or status == HTTPStatus.PAYMENT_REQUIRED:
        return JudgeError(
            f"the account of PVAR_JUDGE_API_KEY has no credit left ({status}{said}); add "
            "credit and run again"
        )
    if is_transient(status):
        return TransientError(f"http_{status}", retry_after(error.response.headers))
    return JudgeError(
        f"the judge's server refuses files or batches ({status}{said}); check "
        "PVAR_JUDGE_API_KEY, or set runtime.judge_mode=live to send the requests one by one"
    )


def _no_api(what: str) -> str:
    return (
        f"the judge's server {what}; set runtime.judge_mode=live, or set PVAR_JUDGE_BASE_URL to a "
        "server with /v1/files and /v1/batches"
    )


def _lost(what: str, record_key: str) -> str:
    return (
        f"the judge's server does not know {what} {record_key}; use the server and the key with "
        "which it was submitted, or delete this object from the store to submit it again"
    )


def _http_errors() -> tuple[type[Exception], ...]:
    """Errors while a file is streamed: of httpx with openai 2, of httpx2 with openai 3."""
    installed = [import_module(name) for name in ("httpx", "httpx2") if find_spec(name)]
    return tuple(module.HTTPError for module in installed)
