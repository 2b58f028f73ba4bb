"""A real HTTP server that speaks the completions protocol, and misbehaves when told to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.services.loopback_http import Handler, Sent, listening, sent_json


@dataclass
class CompletionsServer:
    """What has arrived so far, and how to get here."""

    base_url: str
    asked: list[Any] = field(default_factory=list)
    """Bodies of the completion requests."""
    authorizations: set[str] = field(default_factory=set)
    max_in_flight: int = 0
    """Most requests that were here at one moment."""


@contextmanager
def serving(model: str, behaviour: Callable[[Any], Sent]) -> Iterator[CompletionsServer]:
    """Serve one model on loopback for as long as the block runs."""
    lock = threading.Lock()
    in_flight = 0

    class ServerHandler(Handler):
        def do_GET(self) -> None:
            listed = {"object": "list", "data": [{"id": model, "object": "model"}]}
            self.send(sent_json(listed) if self.path == "/v1/models" else sent_json({}, 404))

        def do_POST(self) -> None:
            nonlocal in_flight
            body = json.loads(self.read_body())
            with lock:
                server.asked.append(body)
                server.authorizations.add(self.headers.get("Authorization", ""))
                in_flight += 1
                server.max_in_flight = max(server.max_in_flight, in_flight)
            try:
                sent = behaviour(body)
            finally:
                with lock:
                    in_flight -= 1
            self.send(sent if self.path == "/v1/completions" else sent_json({}, 404))

    with listening(ServerHandler) as address:
        server = CompletionsServer(f"{address}/v1")
        yield server
