"""A real HTTP server that speaks the completions protocol, and misbehaves when told to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Sent(NamedTuple):
    """What the server answers."""

    body: Any
    status: int = 200


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

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            listed = {"object": "list", "data": [{"id": model, "object": "model"}]}
            self._send(Sent(listed) if self.path == "/v1/models" else Sent({}, 404))

        def do_POST(self) -> None:
            nonlocal in_flight
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
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
            self._send(sent if self.path == "/v1/completions" else Sent({}, 404))

        def _send(self, sent: Sent) -> None:
            data = json.dumps(sent.body).encode()
            self.send_response(sent.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as http:
        server = CompletionsServer(f"http://127.0.0.1:{http.server_port}/v1")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
