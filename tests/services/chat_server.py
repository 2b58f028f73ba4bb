"""A real HTTP server that speaks the chat-completions protocol, and misbehaves when told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import SecretStr

from infra.judges.access import JudgeAccess
from tests.services.loopback_http import Handler, Sent, listening, sent_json


class Asked(NamedTuple):
    """One request, as it arrived."""

    body: Any
    authorization: str
    seconds: float
    """When it arrived, on a clock that never goes back."""

    @property
    def prompt(self) -> str:
        """The last message."""
        return str(self.body["messages"][-1]["content"])


Behaviour = Callable[[Asked], Sent]


@dataclass
class ChatServer:
    """What has arrived so far, and how to get here."""

    base_url: str
    asked: list[Asked] = field(default_factory=list)
    num_answered: int = 0
    max_in_flight: int = 0
    """Most requests that were here at one moment."""

    def access(self, key: str = "sk-test") -> JudgeAccess:
        """As the environment would give it."""
        return JudgeAccess(base_url=SecretStr(self.base_url), api_key=SecretStr(key))


def says(text: str, *, finish_reason: str = "stop", usage: tuple[int, int] | None = (0, 0)) -> Sent:
    """A completion of that text; `usage` is (prompt tokens, completion tokens)."""
    return _completion({"message": {"content": text}, "finish_reason": finish_reason}, usage)


def says_token(top_logprobs: Mapping[str, float]) -> Sent:
    """A completion of one token with the log-probabilities of the likeliest ones."""
    token = max(top_logprobs, key=lambda name: top_logprobs[name])
    top = [{"token": name, "logprob": value} for name, value in top_logprobs.items()]
    position = {"token": token, "logprob": top_logprobs[token], "top_logprobs": top}
    choice = {
        "message": {"content": token},
        "finish_reason": "length",
        "logprobs": {"content": [position]},
    }
    return _completion(choice, (0, 0))


def fails(status: int, *, message: str = "no", code: str = "", retry_after: str = "") -> Sent:
    """An error as OpenAI words it."""
    headers = {"Retry-After": retry_after} if retry_after else {}
    return Sent(json.dumps({"error": {"message": message, "code": code}}).encode(), status, headers)


@contextmanager
def serving(behaviour: Behaviour, *, path: str = "/v1") -> Iterator[ChatServer]:
    """Serve on loopback, each request in a thread of its own, for as long as the block runs."""
    lock = threading.Lock()
    in_flight = 0

    class ServerHandler(Handler):
        def do_POST(self) -> None:
            nonlocal in_flight
            body = json.loads(self.read_body())
            asked = Asked(body, self.headers.get("Authorization", ""), time.monotonic())
            with lock:
                server.asked.append(asked)
                in_flight += 1
                server.max_in_flight = max(server.max_in_flight, in_flight)
            try:
                sent = behaviour(asked)
            finally:
                with lock:
                    in_flight -= 1
            if self.send(sent if self.path == f"{path}/chat/completions" else fails(404)):
                with lock:
                    server.num_answered += 1

    with listening(ServerHandler) as address:
        server = ChatServer(f"{address}{path}")
        yield server


def _completion(choice: Mapping[str, Any], usage: tuple[int, int] | None) -> Sent:
    body: dict[str, Any] = {"object": "chat.completion", "choices": [{"index": 0, **choice}]}
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return sent_json(body)
