"""A real HTTP server that speaks the protocols of reward servers, and misbehaves when told to."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import SecretStr

from infra.rewards.http_scorer import RewardAccess
from tests.services.loopback_http import Handler, Sent, listening, sent_json


class RewardCall(NamedTuple):
    """One request, as it arrived."""

    path: str
    body: Mapping[str, Any]
    authorization: str

    @property
    def response(self) -> str:
        """The response that is to be scored."""
        body = self.body
        match self.path:
            case "/reward":
                return str(body["response"])
            case "/classify":
                return str(body["messages"][-1]["content"])
            case "/score":
                return str(body["text_2"])
            case "/predict":
                return str(body["inputs"][0][1])
            case _:
                return str(body["texts"][0])


def rewards(path: str, reward: float | None) -> Sent:
    """An answer in the form of that endpoint."""
    forms: dict[str, Any] = {
        "/reward": {"reward": reward},
        "/classify": {
            "object": "list",
            "data": [{"index": 0, "label": "LABEL_0", "probs": [reward], "num_classes": 1}],
        },
        "/score": {"object": "list", "data": [{"index": 0, "object": "score", "score": reward}]},
        "/predict": [[{"score": reward, "label": "LABEL_0"}]],
        "/rerank": [{"index": 0, "score": reward}],
    }
    return sent_json(forms[path])


@dataclass
class RewardServer:
    """What has arrived so far, and how to get here."""

    base_url: str
    calls: list[RewardCall] = field(default_factory=list)
    max_in_flight: int = 0
    """Most requests that were here at one moment."""

    def access(self, key: str = "") -> RewardAccess:
        """As the environment would give it."""
        return RewardAccess(base_url=SecretStr(self.base_url), api_key=SecretStr(key))


def by_length(call: RewardCall) -> Sent:
    """The length of the response, and a half."""
    return rewards(call.path, len(call.response) + 0.5)


@contextmanager
def rewarding(behaviour: Callable[[RewardCall], Sent] = by_length) -> Iterator[RewardServer]:
    """Serve on loopback, each request in a thread of its own, for as long as the block runs."""
    lock = threading.Lock()
    in_flight = 0

    class RewardHandler(Handler):
        def do_POST(self) -> None:
            nonlocal in_flight
            body = json.loads(self.read_body())
            call = RewardCall(self.path, body, self.headers.get("Authorization", ""))
            with lock:
                server.calls.append(call)
                in_flight += 1
                server.max_in_flight = max(server.max_in_flight, in_flight)
            try:
                sent = behaviour(call)
            finally:
                with lock:
                    in_flight -= 1
            self.send(sent)

    with listening(RewardHandler) as address:
        server = RewardServer(address)
        yield server
