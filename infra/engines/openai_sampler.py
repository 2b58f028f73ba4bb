"""Sampling on an OpenAI-compatible server: the completions endpoint, with token ids as prompts.

The prompt is rendered here, by the policy's own chat template, so that the server's template does
not matter and there is exactly one beginning-of-sequence token. One request asks for all responses
to a prompt. A server that returns fewer, as some do that know no `n`, is asked for the rest; what
it returns beyond is left out. Responses are numbered in the order of the reply's indexes. Of a
choice only its token ids or its text must be there. The server must list the policy's digest as a
model name:

    vllm serve FOLDER --served-model-name DIGEST        (the error without it shows the command)

Lengths and endings are exact for servers that return token ids (vLLM); for others the text is
tokenised again. Responses are reproducible only if the server honours seeds.

A rejected request rejects its prompt. If the first ones are all rejected for one reason that is not
about their prompts, or if the server does not answer at all, the stage fails and keeps its complete
shards.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import BaseModel, NonNegativeInt, ValidationError, WrapValidator

from infra.engines.chat_format import ChatFormat, EncodedPrompts, load_chat_format
from infra.engines.server_refusals import read_refusal, shared_refusal
from infra.judges.access import SamplerAccess, open_judge_client
from infra.judges.calls import (
    CallError,
    RefusalError,
    TransientError,
    failure_of,
    is_transient,
    or_none,
    retry_after,
)
from infra.judges.health import DeadEnd, Health, results_while_well
from infra.judges.refusals import Refusal
from infra.judges.retry_policy import LONGEST_PAUSE_SECONDS, RetryPolicy, with_retries
from pvar.digest import digest, response_id
from pvar.errors import ModelError, UnavailableError
from pvar.ports import Rejection, SampleRequest
from pvar.records import Response
from pvar.sampler_config import SamplerSettings

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

_log = logging.getLogger(__name__)

RETRY_POLICY = RetryPolicy(timeout_seconds=600, max_attempts=6, back_off_seconds=1.0)
"""Retry policy. The timeout is long because prompts may wait in the server's queue."""

UNCHANGED_DISTRIBUTION = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Overrides the server's defaults for the model (generation_config.json)."""


class _Choice(BaseModel):
    index: Annotated[NonNegativeInt | None, WrapValidator(or_none)] = None
    text: Annotated[str | None, WrapValidator(or_none)] = None
    finish_reason: Annotated[str | None, WrapValidator(or_none)] = None
    token_ids: Annotated[list[NonNegativeInt] | None, WrapValidator(or_none)] = None

    @property
    def is_answer(self) -> bool:
        """Whether it has what a response needs."""
        return self.token_ids is not None or self.text is not None


class _Body(BaseModel):
    """The used parts of a completion."""

    choices: list[Annotated[_Choice | None, WrapValidator(or_none)]]

    @property
    def answers(self) -> list[_Choice]:
        """The usable choices, in the order of their indexes, or else of the reply."""
        usable = [each for each in self.choices if each is not None and each.is_answer]
        if any(each.index is None for each in usable):
            return usable
        return sorted(usable, key=lambda each: each.index or 0)


class _Served(BaseModel):
    id: Annotated[str | None, WrapValidator(or_none)] = None


class _Listing(BaseModel):
    """The used parts of a list of models."""

    data: list[_Served]


class _Asked(NamedTuple):
    """A prompt with the texts that the server's words must not repeat."""

    place: int
    item: EncodedPrompts
    texts: tuple[str, ...]


class _Answered(NamedTuple):
    place: int
    responses: list[Response]
    rejection: Rejection | None = None
    dead_end: DeadEnd | None = None
    """Set if later requests may be refused in the same way."""


@dataclass(frozen=True)
class OpenAISampler:
    """A policy on a server. Only its tokenizer is loaded here."""

    client: "OpenAI"
    model: str
    """Name of the policy on the server: its digest."""
    chat: ChatFormat
    settings: SamplerSettings
    max_in_flight: int
    sends_seeds: bool
    retry_policy: RetryPolicy = RETRY_POLICY
    has_answered: Event = field(default_factory=Event)
    """Set by the first answer."""
    reported: set[str] = field(default_factory=set)
    """Refusals that are in the log."""

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Answer each request.

        Raises UnavailableError if the server does not answer at all, and ModelError if it refuses
        the first requests for one reason that others share.
        """
        encoded, rejections = self.chat.encode(requests)
        texts = {each.prompt_id: tuple(m.content for m in each.messages) for each in requests}
        asked = [_Asked(place, item, texts[item.prompt_id]) for place, item in enumerate(encoded)]
        health = Health(self.max_in_flight, self.has_answered.is_set())
        found: list[_Answered] = []
        ask = partial(self._answer, num_responses, seed)
        for answered in results_while_well(ask, asked, health):
            found.append(answered)
            self._note(health, answered)
        if health.is_hopeless:
            raise ModelError(health.why_hopeless)
        found.sort(key=lambda answered: answered.place)
        rejections += [each.rejection for each in found if each.rejection is not None]
        return [response for each in found for response in each.responses], rejections

    def _report(self, refusal: Refusal) -> None:
        """Log a refusal, once for all of its kind."""
        if refusal.kind not in self.reported:
            self.reported.add(refusal.kind)
            _log.warning(
                "the policy's server refuses a prompt (%d): %s",
                refusal.status,
                refusal.words or "no reason given",
            )

    def _note(self, health: Health, answered: _Answered) -> None:
        if answered.dead_end is not None:
            health.note_dead_end(answered.dead_end)
        elif answered.rejection is None:
            health.note_verdict()
            self.has_answered.set()

    def _answer(self, num_responses: int, seed: int, over: Event, asked: _Asked) -> _Answered:
        """All responses to a prompt, with retries; what the server leaves out is asked for."""
        choices: list[_Choice] = []
        try:
            while missing := num_responses - len(choices):
                ask_once = partial(self._complete, asked, missing, seed, len(choices))
                choices += with_retries(ask_once, self.retry_policy, over).answers[:missing]
        except TransientError as error:
            pause = error.pause_seconds or 0
            tried = (
                f"and asks for a pause of {pause:.0f} s"
                if pause > LONGEST_PAUSE_SECONDS
                else f"{self.retry_policy.max_attempts} attempts"
            )
            raise UnavailableError(
                f"the policy's server did not answer ({error.reason}, {tried}): look at the server "
                "that PVAR_SAMPLER_BASE_URL names, and run again; complete shards are kept"
            ) from None  # the client's words may hold the address
        except RefusalError as error:
            self._report(error.refusal)
            rejection = Rejection(asked.item.prompt_id, error.reason)
            dead_end = shared_refusal(error.refusal, self.settings)
            return _Answered(asked.place, [], rejection, dead_end)
        except CallError as error:
            return _Answered(asked.place, [], Rejection(asked.item.prompt_id, error.reason))
        return _Answered(
            asked.place,
            [
                self._response(asked.item.prompt_id, number, choice)
                for number, choice in enumerate(choices)
            ],
        )

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _complete(self, asked: _Asked, num_responses: int, seed: int, num_before: int) -> _Body:
        """Send one request without retry, after `num_before` answers of others.

        Raises TransientError, RefusalError, ModelError or UnavailableError.
        """
        from openai import OpenAIError, omit

        part = [num_before] if num_before else []
        own_seed = int(digest([seed, asked.item.prompt_id, *part], length=8), 16) % 2**31
        try:
            raw = self.client.completions.with_raw_response.create(
                model=self.model,
                prompt=asked.item.token_ids,
                n=num_responses,
                max_tokens=self.settings.max_new_tokens,
                temperature=self.settings.temperature,
                top_p=self.settings.top_p,
                seed=own_seed if self.sends_seeds else omit,
                extra_body={
                    "return_token_ids": True,
                    "stop_token_ids": sorted(self.chat.end_ids),
                    **UNCHANGED_DISTRIBUTION,
                },
            )
            body = _Body.model_validate_json(raw.content)
            if body.answers:
                return body
            failure: Exception = TransientError("unreadable_reply")
        except ValidationError:
            failure = TransientError("unreadable_reply")
        except OpenAIError as error:
            failure = failure_of(error, lambda status: self._refusal(status, asked.texts))
        raise failure  # out here, so that the client's own exception is not its context

    def _refusal(self, error: "APIStatusError", texts: Sequence[str]) -> Exception:
        status = error.status_code
        refusal = read_refusal(error, self.client, texts)
        if status in (401, 403, 404):
            return _no_access(refusal, self.model)
        if status == HTTPStatus.PAYMENT_REQUIRED or error.code == "insufficient_quota":
            return UnavailableError(
                f"the account of PVAR_SAMPLER_API_KEY has no credit left ({status}: "
                f"{refusal.words}); add credit and run again; complete shards are kept"
            )
        if is_transient(status):
            return TransientError(f"http_{status}", retry_after(error.response.headers))
        return RefusalError(refusal)

    def _response(self, prompt_id: str, number: int, choice: _Choice) -> Response:
        if choice.token_ids is not None:
            return self.chat.response(prompt_id, number, choice.token_ids)
        ended = choice.finish_reason == "stop"
        whole = choice.text or ""
        text = whole.strip()
        num_tokens = len(self.chat.tokenizer.encode(whole, add_special_tokens=False)) + ended
        return Response(
            prompt_id,
            response_id(prompt_id, number, text),
            number,
            text,
            num_tokens,
            "stop" if ended else "length" if choice.finish_reason == "length" else "error",
        )


def open_openai_sampler(
    folder: Path,
    policy: str,
    settings: SamplerSettings,
    max_in_flight: int,
    access: SamplerAccess,
    retry_policy: RetryPolicy = RETRY_POLICY,
) -> OpenAISampler:
    """Connect, and check that the server serves the policy with this digest.

    Raises ConfigError for an invalid address or key, ModelError if the policy is not served, and
    UnavailableError if the server does not answer.
    """
    client = open_judge_client(access, timeout_seconds=retry_policy.timeout_seconds)
    names = _served(client, policy, retry_policy)
    if policy not in names:
        raise ModelError(
            f"the policy's server serves {', '.join(names) or 'nothing'}, not {policy}: start it "
            f"with `vllm serve {folder} --served-model-name {policy}`"
        )
    return OpenAISampler(
        client,
        policy,
        load_chat_format(folder, settings),
        settings,
        max_in_flight,
        access.seeds,
        retry_policy,
    )


def _served(client: "OpenAI", policy: str, retry_policy: RetryPolicy) -> list[str]:
    from openai import OpenAIError

    def refused(error: "APIStatusError") -> Exception:
        status = error.status_code
        if is_transient(status):
            return TransientError(f"http_{status}", retry_after(error.response.headers))
        return _no_access(read_refusal(error, client, ()), policy)

    def ask() -> list[str]:
        try:
            raw = client.models.with_raw_response.list()
            listed = _Listing.model_validate_json(raw.content).data
            return [model.id for model in listed if model.id is not None]
        except ValidationError:  # of a web page, for example
            failure: Exception = TransientError("unreadable_reply")
        except OpenAIError as error:
            failure = failure_of(error, refused)
        raise failure

    try:
        return with_retries(ask, retry_policy, Event())
    except TransientError as error:
        raise UnavailableError(
            f"the policy's server cannot be reached ({error.reason}); check PVAR_SAMPLER_BASE_URL "
            "(it ends in /v1) and that the server runs"
        ) from None


def _no_access(refusal: Refusal, policy: str) -> ModelError:
    said = f": {refusal.words}" if refusal.words else ""
    if refusal.status == HTTPStatus.NOT_FOUND:
        return ModelError(
            f"the policy's server has no model {policy!r}, or no completions (404{said}); check "
            "PVAR_SAMPLER_BASE_URL (it ends in /v1) and the server's --served-model-name"
        )
    return ModelError(
        f"the policy's server does not accept the key ({refusal.status}{said}); check "
        "PVAR_SAMPLER_API_KEY"
    )
