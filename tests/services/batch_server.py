"""A real HTTP server with the files and batches of OpenAI's batch API, in memory."""

import email
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from infra.judges.access import JudgeAccess
from tests.services.chat_server import Asked, Behaviour, fails
from tests.services.loopback_http import Handler, Sent, listening, sent_json

STEPS = ("validating", "in_progress", "finalizing")
"""A batch is one step further each time it is looked at, until it ends."""


class End(NamedTuple):
    """How a batch ends."""

    status: str = "completed"
    num_answered: int | None = None
    """Requests that are answered before an early end; None is all."""
    code: str = ""
    """Error code of a batch that failed."""
    message: str = "no"
    """The server's words about it."""


COMPLETED = End()


@dataclass
class Submitted:
    """A batch that was created."""

    id: str
    requests: list[Any]
    metadata: Mapping[str, str]
    end: End
    num_looks: int = 0

    @property
    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [str(each["body"]["messages"][-1]["content"]) for each in self.requests]


@dataclass
class BatchServer:
    """What has arrived so far, and how to get here."""

    base_url: str
    batches: list[Submitted] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    is_held: bool = False
    """No batch ends while this is set."""
    num_looks: int = 0

    @property
    def num_requests(self) -> int:
        """Requests of all batches."""
        return sum(len(batch.requests) for batch in self.batches)

    def access(self, key: str = "sk-test") -> JudgeAccess:
        """As the environment would give it."""
        return JudgeAccess(base_url=SecretStr(self.base_url), api_key=SecretStr(key))


Refuse = Callable[[str, str], Sent | None]
"""What the server sends instead, by method and path."""


@contextmanager
def serving_batches(
    behaviour: Behaviour,
    *,
    ends: Sequence[End] = (COMPLETED,),
    refuse: Refuse = lambda method, path: None,
    refuse_after: Refuse = lambda method, path: None,
    is_held: bool = False,
) -> Iterator[BatchServer]:
    """Serve on loopback for as long as the block runs.

    The n-th batch ends as the n-th of `ends` says, and later ones as the last. `refuse_after`
    answers something else after the request was carried out.
    """
    lock = threading.Lock()

    class ServerHandler(Handler):
        def do_POST(self) -> None:
            body = self.read_body()
            match self._path():
                case ["files"]:
                    self._answer(lambda: self._put_file(body))
                case ["batches"]:
                    self._answer(lambda: self._put_batch(json.loads(body)))
                case _:
                    self.send(fails(404))

        def do_GET(self) -> None:
            match self._path():
                case ["files", name, "content"] if name in server.files:
                    self._answer(lambda: Sent(server.files[name], content_type="binary"))
                case ["batches"]:
                    newest_first = [_to_json(server, batch) for batch in server.batches[::-1]]
                    listing = {"object": "list", "data": newest_first, "has_more": False}
                    self._answer(lambda: sent_json(listing))
                case ["batches", name] if batch := _named(server, name):
                    self._answer(lambda: self._look_at(batch))
                case _:
                    self.send(fails(404))

        def _path(self) -> list[str]:
            return urlsplit(self.path).path.removeprefix("/v1/").split("/")

        def _answer(self, carry_out: Callable[[], Sent]) -> None:
            path = urlsplit(self.path).path
            if refusal := refuse(self.command, path):
                self.send(refusal)
                return
            with lock:
                sent = carry_out()
            self.send(refuse_after(self.command, path) or sent)

        def _put_file(self, body: bytes) -> Sent:
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts: Any = email.message_from_bytes(head + body).get_payload()
            fields = {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                for part in parts
            }
            assert fields["purpose"] == b"batch"
            name = f"file-{len(server.files)}"
            server.files[name] = fields["file"]
            return sent_json({"id": name, "object": "file", "purpose": "batch"})

        def _put_batch(self, wanted: Any) -> Sent:
            assert wanted["endpoint"] == "/v1/chat/completions"
            assert wanted["completion_window"] == "24h"
            lines = server.files[wanted["input_file_id"]].removesuffix(b"\n").split(b"\n")
            requests = [json.loads(line) for line in lines]
            number = len(server.batches)
            end = ends[min(number, len(ends) - 1)]
            batch = Submitted(f"batch-{number}", requests, wanted["metadata"], end)
            server.batches.append(batch)
            return sent_json(_to_json(server, batch))

        def _look_at(self, batch: Submitted) -> Sent:
            server.num_looks += 1
            if not (server.is_held and batch.num_looks == len(STEPS) - 1):
                batch.num_looks += 1
            if batch.num_looks == len(STEPS):
                _finish(server, batch, behaviour)
            return sent_json(_to_json(server, batch))

    with listening(ServerHandler) as address:
        server = BatchServer(f"{address}/v1", is_held=is_held)
        yield server


def _named(server: BatchServer, name: str) -> Submitted | None:
    return next((batch for batch in server.batches if batch.id == name), None)


def _finish(server: BatchServer, batch: Submitted, behaviour: Behaviour) -> None:
    """Write the output and the error file, in an order of their own, as the real one does."""
    if batch.end.status == "failed":
        return
    answered: list[bytes] = []
    failed: list[bytes] = []
    for number, request in reversed(list(enumerate(batch.requests))):
        line = {"id": f"r{number}", "custom_id": request["custom_id"]}
        if batch.end.num_answered is not None and number >= batch.end.num_answered:
            error = {"code": f"batch_{batch.end.status}", "message": "too late"}
            failed.append(json.dumps({**line, "response": None, "error": error}).encode())
            continue
        sent = behaviour(Asked(request["body"], "", 0.0))
        response = {"status_code": sent.status, "body": json.loads(sent.body)}
        lines = answered if sent.status == 200 else failed
        lines.append(json.dumps({**line, "response": response, "error": None}).encode())
    for name, written in (("output", answered), ("errors", failed)):
        if written:
            server.files[f"{name}-{batch.id}"] = b"\n".join(written) + b"\n"


def _to_json(server: BatchServer, batch: Submitted) -> dict[str, Any]:
    is_over = batch.num_looks >= len(STEPS)
    output, errors = (
        name if name in server.files else None
        for name in (f"output-{batch.id}", f"errors-{batch.id}")
    )
    num_answered = len(batch.requests) * batch.num_looks // len(STEPS)
    faults = {"object": "list", "data": [{"code": batch.end.code, "message": batch.end.message}]}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file",
        "completion_window": "24h",
        "created_at": 0,
        "metadata": batch.metadata,
        "status": batch.end.status if is_over else STEPS[batch.num_looks],
        "output_file_id": output,
        "error_file_id": errors,
        "errors": faults if is_over and batch.end.code else None,
        "request_counts": {"total": len(batch.requests), "completed": num_answered, "failed": 0},
    }
