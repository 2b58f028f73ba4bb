"""Sampling on an OpenAI-compatible server: the completions endpoint, with token ids as prompts.

The prompt is rendered here, by the policy's own chat template, so that the server's template does
not matter and there is exactly one beginning-of-sequence token. One request asks for all responses
to a prompt. A server that returns fewer, as some do that know no `n`, is asked for the rest; what
it returns beyond is left out. Responses are numbered in the order of the reply's indexes. The
server must list the policy's digest as a model name:

    vllm serve FOLDER --served-model-name DIGEST        (the error without it shows the command)

Lengths and endings are exact for servers that return token ids (vLLM); for others the text is
tokenised again. Responses are reproducible only if the server honours seeds.

A rejected request rejects its prompt. If the server does not answer at all, the stage fails and
keeps its complete shards.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from infra.engines.chat_format import ChatFormat, EncodedPrompts, load_chat_format
from infra.judges.access import ServerAccess, open_judge_client
from infra.judges.calls import CallError, TransientError, retry_after
from infra.judges.retry_policy import RetryPolicy, with_retries
from pvar.digest import digest, response_id
from pvar.errors import ModelError, UnavailableError
from pvar.ports import Rejection, SampleRequest
from pvar.records import Response
from pvar.sampler_config import SamplerSettings

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI


RETRY_POLICY = RetryPolicy(timeout_seconds=600, max_attempts=6, back_off_seconds=1.0)
"""Retry policy. The timeout is long because prompts may wait in the server's queue."""

UNCHANGED_DISTRIBUTION = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Overrides the server's defaults for the model (generation_config.json)."""


class SamplerAccess(ServerAccess, env_prefix="PVAR_SAMPLER_"):
    """The policy's server: PVAR_SAMPLER_BASE_URL and, if needed, PVAR_SAMPLER_API_KEY.

    PVAR_SAMPLER_SEEDS=false sends no seeds, for servers that fail on them (vLLM on a CPU). Two
    runs then differ by the state of the server's own generator.
    """

    seeds: bool = True
    """Send a seed with each prompt, from the shard's seed and the prompt's id."""


class _Choice(BaseModel):
    index: int = Field(ge=0)
    text: str
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Body(BaseModel):
    """The used parts of a completion."""

    choices: list[_Choice] = Field(min_length=1)


class _Answered(NamedTuple):
    responses: list[Response]
    rejection: Rejection | None


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

    def sample(
        self, requests: Sequence[SampleRequest], *, num_responses: int, seed: int
    ) -> tuple[list[Response], list[Rejection]]:
        """Answer each request. Raises UnavailableError if the server does not answer at all."""
        encoded, rejections = self.chat.encode(requests)
        over = Event()

        def ask(item: EncodedPrompts) -> _Answered:
            choices: list[_Choice] = []
            try:
                while missing := num_responses - len(choices):
                    ask_once = partial(self._complete, item, missing, seed, len(choices))
                    body = with_retries(ask_once, self.retry_policy, over)
                    choices += sorted(body.choices, key=lambda each: each.index)[:missing]
            except TransientError as error:
                over.set()
                raise UnavailableError(
                    f"the policy's server did not answer ({error.reason}, "
                    f"{self.retry_policy.max_attempts} attempts): look at the server that "
                    "PVAR_SAMPLER_BASE_URL names, and run again; complete shards are kept"
                ) from None  # the client's words may hold the address
            except CallError as error:
                return _Answered([], Rejection(item.prompt_id, error.reason))
            numbered = [each.model_copy(update={"index": n}) for n, each in enumerate(choices)]
            return _Answered([self._response(item.prompt_id, each) for each in numbered], None)

        responses: list[Response] = []
        with ThreadPoolExecutor(self.max_in_flight) as pool:
            for answered in pool.map(ask, encoded):
                responses += answered.responses
                rejections += [answered.rejection] if answered.rejection else []
        return responses, rejections

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _complete(
        self, item: EncodedPrompts, num_responses: int, seed: int, num_before: int
    ) -> _Body:
        """Send one request without retry, after `num_before` answers of others.

        Raises TransientError, CallError or ModelError.
        """
        from openai import APIStatusError, APITimeoutError, OpenAIError, omit

        part = [num_before] if num_before else []
        own_seed = int(digest([seed, item.prompt_id, *part], length=8), 16) % 2**31
        try:
            raw = self.client.completions.with_raw_response.create(
                model=self.model,
                prompt=item.token_ids,
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
            return _Body.model_validate_json(raw.content)
        except ValidationError:
            failure: Exception = TransientError("unreadable_reply")
        except APITimeoutError:
            failure = TransientError("timeout")
        except APIStatusError as error:
            failure = self._refusal(error)
        except OpenAIError:
            failure = TransientError("no_connection")
        raise failure  # out here, so that the client's own exception is not its context

    def _refusal(self, error: "APIStatusError") -> Exception:
        status = error.status_code
        if status in (401, 403, 404):
            return _no_access(status, self.model)
        if _is_transient(status):
            return TransientError(f"http_{status}", retry_after(error.response.headers))
        return CallError(f"http_{status}")

    def _response(self, prompt_id: str, choice: _Choice) -> Response:
        if choice.token_ids is not None:
            return self.chat.response(prompt_id, choice.index, choice.token_ids)
        ended = choice.finish_reason == "stop"
        text = choice.text.strip()
        num_tokens = len(self.chat.tokenizer.encode(choice.text, add_special_tokens=False)) + ended
        return Response(
            prompt_id,
            response_id(prompt_id, choice.index, text),
            choice.index,
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
    from openai import APIStatusError, OpenAIError

    def ask() -> list[str]:
        try:
            return [model.id for model in client.models.list()]
        except APIStatusError as error:
            status = error.status_code
            failure = (
                TransientError(f"http_{status}")
                if _is_transient(status)
                else _no_access(status, policy)
            )
        except OpenAIError:
            failure = TransientError("no_connection")
        raise failure

    try:
        return with_retries(ask, retry_policy, Event())
    except TransientError as error:
        raise UnavailableError(
            f"the policy's server cannot be reached ({error.reason}); check PVAR_SAMPLER_BASE_URL "
            "(it ends in /v1) and that the server runs"
        ) from None


def _is_transient(status: int) -> bool:
    return status in (408, 409, 429) or status >= 500


def _no_access(status: int, policy: str) -> ModelError:
    if status == 404:
        return ModelError(
            f"the policy's server has no model {policy!r}, or no completions (404): check "
            "PVAR_SAMPLER_BASE_URL (it ends in /v1) and the server's --served-model-name"
        )
    return ModelError(
        f"the policy's server does not accept the key ({status}): PVAR_SAMPLER_API_KEY"
    )
