"""A proxy before an S3 server that behaves like some server in the field: one fault at a time.

Headers may be dropped on the way: the quick server behind it checks no signature.
"""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

from tests.services.processes import NEVER_SECONDS
from tests.services.s3 import S3Server


class Fault(Enum):
    """What is wrong with the server."""

    IGNORES_CONDITIONS = auto()
    """If-None-Match is overlooked, as older S3-compatible servers do."""
    IGNORES_CONDITIONS_AND_LAGS = auto()
    """So too, and of two writers both look before either puts, and one put comes 0.2 s later.

    Who looks a second after a put began finds both, however slow the machine is.
    """
    REFUSES_CONDITIONS = auto()
    """If-None-Match is answered with 501 NotImplemented."""
    CONFLICTS_ONCE = auto()
    """The first conditional put of each object is answered with 409, as Amazon's S3 may."""
    LOSES_ANSWERS = auto()
    """The first conditional put of each object is carried out, but its answer does not arrive."""
    CUTS_ANSWERS = auto()
    """The first reading of each object breaks off half-way."""
    SLOWS_DOWN = auto()
    """The first three requests of each kind (method and address) are answered with 503 SlowDown."""


@contextmanager
def faulty(server: S3Server, fault: Fault) -> Iterator[S3Server]:
    """`server`, seen through a proxy with the fault."""

    class Handler(_Handler):
        pass

    Handler.target, Handler.fault, Handler.seen = urlsplit(server.endpoint).netloc, fault, set()
    Handler.both_look, Handler.both_looked = threading.Barrier(2), threading.Event()
    Handler.puts_began, Handler.puts_ended, Handler.both_put = [], [], threading.Event()
    Handler.num_asked = {}
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server._replace(endpoint=f"http://127.0.0.1:{proxy.server_port}")
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: ClassVar[str]
    fault: ClassVar[Fault]
    seen: ClassVar[set[str]]
    """Paths whose first request got its fault."""
    both_look: ClassVar[threading.Barrier]
    both_looked: ClassVar[threading.Event]
    puts_began: ClassVar[list[float]]
    puts_ended: ClassVar[list[float]]
    num_asked: ClassVar[dict[str, int]]
    both_put: ClassVar[threading.Event]

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_conditional = "If-None-Match" in self.headers
        if self.fault in (Fault.IGNORES_CONDITIONS, Fault.IGNORES_CONDITIONS_AND_LAGS):
            del self.headers["If-None-Match"]
        is_contested = self.fault is Fault.IGNORES_CONDITIONS_AND_LAGS and "contested" in self.path
        if is_contested:
            self._lag()
        if is_conditional and self.fault is Fault.REFUSES_CONDITIONS:
            return self._answer(501, b"<Error><Code>NotImplemented</Code></Error>")
        if is_conditional and self.fault is Fault.CONFLICTS_ONCE and self._is_first():
            return self._answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>")
        if self.fault is Fault.SLOWS_DOWN and self._is_early():
            return self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
        status, headers, content = self._ask_target(body)
        if is_contested and self.command == "PUT":
            self.puts_ended.append(time.monotonic())
            if len(self.puts_ended) == 2:
                self.both_put.set()
        if is_conditional and self.fault is Fault.LOSES_ANSWERS and self._is_first():
            return self._hang_up()
        is_cut = self.command == "GET" and self.fault is Fault.CUTS_ANSWERS and self._is_first()
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        return self._hang_up() if is_cut else None

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward

    def _lag(self) -> None:
        if self.command == "HEAD" and not self.both_looked.is_set():
            self.both_look.wait(timeout=NEVER_SECONDS)
            self.both_looked.set()
        elif self.command == "HEAD" and time.monotonic() > self.puts_began[0] + 1:
            self.both_put.wait(NEVER_SECONDS)
        elif self.command == "PUT":
            self.puts_began.append(time.monotonic())
            if not self._is_first():
                time.sleep(0.2)

    def _is_early(self) -> bool:
        kind = f"{self.command} {self.path}"
        self.num_asked[kind] = self.num_asked.get(kind, 0) + 1
        return self.num_asked[kind] <= 3

    def _is_first(self) -> bool:
        is_first = self.path not in self.seen
        self.seen.add(self.path)
        return is_first

    def _ask_target(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.target)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the requests are the tests' own."""
