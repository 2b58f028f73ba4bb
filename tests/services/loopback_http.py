"""What the HTTP servers of the tests share: an answer, a silent handler, serving on loopback."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Sent(NamedTuple):
    """What the server answers."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"


def sent_json(value: Any, status: int = 200) -> Sent:
    """An answer in JSON."""
    return Sent(json.dumps(value).encode(), status)


class Handler(BaseHTTPRequestHandler):
    """Reads and answers requests, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def read_body(self) -> bytes:
        """The body of the request."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def send(self, sent: Sent) -> bool:
        """Answer; whether the client was still there."""
        try:
            self.send_response(sent.status)
            for name, value in sent.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", sent.content_type)
            self.send_header("Content-Length", str(len(sent.body)))
            self.end_headers()
            self.wfile.write(sent.body)
        except ConnectionError:
            self.close_connection = True
            return False
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed resets its connection: no news."""


@contextmanager
def listening(handler: type[Handler]) -> Iterator[str]:
    """The address, while requests are served on loopback, each in a thread of its own."""
    with _Server(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()
