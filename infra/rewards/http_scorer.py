"""A reward model on a server: one request for a response (`infra/rewards/reward_requests.py`).

Address and key are in PVAR_REWARD_BASE_URL and PVAR_REWARD_API_KEY. Equal conversations are asked
about once. Busy servers are asked again. A response that the server refuses has a missing reward
(`http_400`, …); if the first requests are all refused for one reason that is not about their texts,
or if the server does not answer at all, the stage fails and keeps its complete shards.

Missing rewards have a reason: `no_reward` (the server gave null), `not_finite`, `http_…`, and
`empty_response` (which only a server of kind `pvar` is asked about).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

from pydantic import SecretStr, ValidationError

from infra.engines.server_refusals import read_refusal
from infra.judges.access import ServerAccess, open_judge_client
from infra.judges.calls import (
    CallError,
    RefusalError,
    TransientError,
    failure_of,
    is_transient,
    retry_after,
)
from infra.judges.health import DeadEnd, Health, results_while_well
from infra.judges.refusals import Refusal
from infra.judges.retry_policy import RetryPolicy, with_retries
from infra.rewards.reward_requests import RewardApi, api_of
from pvar.errors import ConfigError, PvarError, ScoringError, UnavailableError
from pvar.ports import ScoreRequest
from pvar.records import Message, Score
from pvar.reward_config import HttpReward

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

_log = logging.getLogger(__name__)

RETRIES = RetryPolicy(timeout_seconds=120, max_attempts=6, back_off_seconds=1.0)

ONE_TRY = RetryPolicy(timeout_seconds=20, max_attempts=1, back_off_seconds=0)
"""For the check before a run."""

PROBE = ScoreRequest("probe", "probe", (Message("user", "Hello?"),), "Hello.")


class RewardAccess(ServerAccess, env_prefix="PVAR_REWARD_"):
    """The reward model's server: PVAR_REWARD_BASE_URL and, if needed, PVAR_REWARD_API_KEY."""

    base_url: SecretStr = SecretStr("")
    """Address up to the path of the endpoint, such as http://host:8000."""


class _Rewarded(NamedTuple):
    request: ScoreRequest
    reward: float | None
    reason: str | None = None
    is_answered: bool = True
    """False if the server refused it."""
    dead_end: DeadEnd | None = None
    """Set if later requests may be refused in the same way."""


@dataclass(frozen=True)
class HttpScorer:
    """A reward model on a server."""

    client: "OpenAI"
    settings: HttpReward
    api: RewardApi
    max_in_flight: int
    retries: RetryPolicy = RETRIES
    has_answered: Event = field(default_factory=Event)
    """Set by the first answer."""
    reported: set[str] = field(default_factory=set)
    """Refusals that are in the log."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in order.

        Raises UnavailableError if the server does not answer, and ScoringError if it refuses the
        first requests for one reason that others share, or answers in another form.
        """
        distinct = {
            _conversation(request): request
            for request in requests
            if self.api.takes_empty or not request.is_empty
        }
        health = Health(self.max_in_flight, self.has_answered.is_set())
        found: dict[object, _Rewarded] = {}
        for rewarded in results_while_well(self._ask, distinct.values(), health):
            found[_conversation(rewarded.request)] = rewarded
            self._note(health, rewarded)
        if health.is_hopeless:
            raise ScoringError(health.why_hopeless)
        return [_score(request, found.get(_conversation(request))) for request in requests]

    def _note(self, health: Health, rewarded: _Rewarded) -> None:
        if rewarded.dead_end is not None:
            health.note_dead_end(rewarded.dead_end)
        elif rewarded.is_answered:
            health.note_verdict()
            self.has_answered.set()

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _ask(self, over: Event, request: ScoreRequest) -> _Rewarded:
        try:
            reward = with_retries(partial(self._send, request), self.retries, over)
        except TransientError as error:
            raise UnavailableError(
                f"the server of reward model {self.settings.name!r} did not answer "
                f"({error.reason}, {self.retries.max_attempts} attempts): look at the server that "
                "PVAR_REWARD_BASE_URL names, and run again; complete shards are kept"
            ) from None  # the client's words may hold the address
        except RefusalError as error:
            self._report(error.refusal)
            dead_end = self._shared(error.refusal)
            return _Rewarded(request, None, error.reason, is_answered=False, dead_end=dead_end)
        except CallError as error:
            return _Rewarded(request, None, error.reason, is_answered=False)
        if reward is None:
            return _Rewarded(request, None, "no_reward")
        if not math.isfinite(reward):
            return _Rewarded(request, None, "not_finite")
        return _Rewarded(request, float(reward))

    def _send(self, request: ScoreRequest) -> float | int | None:
        """Send one request without retry.

        Raises TransientError, RefusalError, ScoringError or UnavailableError.
        """
        from httpx import Response
        from openai import OpenAIError

        body = self.api.body(self.settings.model, request)
        try:
            return self.api.read(
                self.client.post(self.api.path, body=body, cast_to=Response).content
            )
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, fault["loc"])) or "the answer"
            failure: Exception = ScoringError(
                f"the server of reward model {self.settings.name!r} answers {self.api.path} in "
                f"another form than api {self.settings.api} has ({place}: {fault['msg']}); correct "
                "`api`, or the server"
            )
        except OpenAIError as error:
            failure = failure_of(error, lambda status: self._refusal(status, request))
        raise failure  # out here, so that the client's own exception is not its context

    def _refusal(self, error: "APIStatusError", request: ScoreRequest) -> Exception:
        texts = [request.response, *(message.content for message in request.messages)]
        refusal, status = read_refusal(error, self.client, texts), error.status_code
        said = f": {refusal.words}" if refusal.words else ""
        what = f"the server of reward model {self.settings.name!r}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return ScoringError(
                f"{what} does not accept the key ({status}{said}); check PVAR_REWARD_API_KEY"
            )
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            return ScoringError(
                f"{what} has no {self.api.path}, or no model {self.settings.model!r} "
                f"({status}{said}); check `api`, `model` and PVAR_REWARD_BASE_URL"
            )
        if is_transient(status):
            return TransientError(f"http_{status}", retry_after(error.response.headers))
        return RefusalError(refusal)

    def _report(self, refusal: Refusal) -> None:
        """Log a refusal, once for all of its kind."""
        if refusal.kind not in self.reported:
            self.reported.add(refusal.kind)
            _log.warning(
                "the server of reward model %r refuses a response (%d): %s",
                self.settings.name,
                refusal.status,
                refusal.words or "no reason given",
            )

    def _shared(self, refusal: Refusal) -> DeadEnd | None:
        """A refusal that is not about one response's text."""
        if refusal.is_of_one_call:
            return None
        said = f": {refusal.words}" if refusal.words else ""
        return DeadEnd(
            refusal.kind,
            f"the server of reward model {self.settings.name!r} refuses the requests "
            f"({refusal.status}{said}); check its `api` and `model`",
            is_certain=False,
        )


def _conversation(request: ScoreRequest) -> tuple[tuple[Message, ...], str]:
    return request.messages, request.response


def _score(request: ScoreRequest, rewarded: _Rewarded | None) -> Score:
    if rewarded is None:
        return Score(request.prompt_id, request.response_id, None, "empty_response")
    return Score(request.prompt_id, request.response_id, rewarded.reward, rewarded.reason)


def open_http_scorer(
    settings: HttpReward,
    max_in_flight: int,
    access: RewardAccess,
    retries: RetryPolicy = RETRIES,
) -> HttpScorer:
    """Connect without a request. ConfigError for an invalid address or key."""
    client = open_judge_client(access, timeout_seconds=retries.timeout_seconds)
    return HttpScorer(client, settings, api_of(settings), max_in_flight, retries)


def refuse_unusable_server(settings: HttpReward, access: RewardAccess) -> None:
    """Ask about one response; ConfigError if the server gives no answer that can be read."""
    scorer = open_http_scorer(settings, 1, access, ONE_TRY)
    try:
        (score,) = scorer.score([PROBE])
    except PvarError as error:
        raise ConfigError(str(error).replace("; complete shards are kept", "")) from None
    finally:
        scorer.close()
    if score.reason is not None and score.reason.startswith("http_"):
        raise ConfigError(
            f"the server of reward model {settings.name!r} refuses a test request "
            f"({score.reason}); check its `api` and `model`"
        )
