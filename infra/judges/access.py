"""Address and key of a server (of a judge or the policy), from the environment only.

They never enter a configuration, an identity, a log or an error; errors name the variables instead.
"""

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from pvar.errors import ConfigError, PvarError, UnavailableError

if TYPE_CHECKING:
    from openai import OpenAI

logger = logging.getLogger(__name__)

_OPENAI = "https://api.openai.com/v1"

ANSWER_SECONDS = 10.0
"""Limit of the one request that asks whether a server is there."""

NO_KEY = "none"
"""Sent as the key if there is none, because the client wants one."""


class ServerAccess(BaseSettings):
    """An OpenAI-compatible server. Subclasses define the prefix of their variables.

    OPENAI_API_KEY is not read, so that a key is never sent to another server by accident.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, hide_input_in_errors=True)

    base_url: SecretStr = SecretStr(_OPENAI)
    """Address up to /v1; `vllm serve` has http://host:8000/v1."""

    api_key: SecretStr | None = None
    """API key; self-hosted servers often need none."""


class JudgeAccess(ServerAccess, env_prefix="PVAR_JUDGE_"):
    """The judge's server: PVAR_JUDGE_BASE_URL and PVAR_JUDGE_API_KEY."""


class SamplerAccess(ServerAccess, env_prefix="PVAR_SAMPLER_"):
    """The policy's server: PVAR_SAMPLER_BASE_URL and, if needed, PVAR_SAMPLER_API_KEY.

    PVAR_SAMPLER_SEEDS=false sends no seeds, for servers that fail on them (vLLM on a CPU). Two
    runs then differ by the state of the server's own generator.
    """

    seeds: bool = True
    """Send a seed with each prompt, from the shard's seed and the prompt's id."""


def open_judge_client(access: ServerAccess, *, timeout_seconds: float) -> "OpenAI":
    """Create the client without a request. Raises ConfigError for an invalid address or key.

    The client's loggers are set to WARNING, because their records contain the server's address.
    """
    from openai import OpenAI

    for name in ("openai", "httpx", "httpcore", "httpx2", "httpcore2"):  # the last two: openai 3
        logging.getLogger(name).setLevel(logging.WARNING)
    return OpenAI(
        base_url=_checked_address(access),
        api_key=_checked_key(access),
        timeout=timeout_seconds,
        max_retries=0,  # infra/judges/retry_policy.py does it
    )


def refuse_unusable_access(access: ServerAccess) -> None:
    """Raise ConfigError for an invalid address or key, without a request."""
    _checked_address(access)
    _checked_key(access)


def refuse_unreachable(access: ServerAccess) -> None:
    """Ask the server for its models. UnavailableError if it does not answer, ConfigError if it does
    not accept the key. Any other answer will do: not every server has such a list. A server that
    takes the request and is slow may be busy, or starting: that is logged.

    What `refuse_unusable_access` refuses is not asked.
    """
    from openai import APIConnectionError, AuthenticationError, OpenAIError

    try:
        client = open_judge_client(access, timeout_seconds=ANSWER_SECONDS)
    except ConfigError:
        return
    failure: PvarError | None = None
    try:
        client.models.with_raw_response.list()  # unread: it may be a web page
    except APIConnectionError as error:
        if _reason(error) == "ReadTimeout":
            logger.warning(
                "the server that %s names took the request and has not answered in %.0f s: it may "
                "be busy, or still starting",
                _variable(access, "BASE_URL"),
                ANSWER_SECONDS,
            )
            return
        failure = UnavailableError(
            f"the server that {_variable(access, 'BASE_URL')} names does not answer "
            f"({_reason(error)}); start it, or correct the address"
        )
    except AuthenticationError as error:
        if "scope" not in error.message.lower():  # a key for other requests
            failure = ConfigError(
                f"the server that {_variable(access, 'BASE_URL')} names does not accept the key "
                f"(401); correct {_variable(access, 'API_KEY')}"
            )
    except OpenAIError:  # another status: the server is there
        pass
    finally:
        client.close()
    if failure is not None:
        raise failure  # out here, so that the client's own exception is not its context


def _reason(error: Exception) -> str:
    """The kind of the error: its words may hold the address."""
    kinds = [type(link).__name__ for link in (error.__cause__, error) if link is not None]
    return kinds[0]


def _checked_address(access: ServerAccess) -> str:
    variable = _variable(access, "BASE_URL")
    address = urlsplit(access.base_url.get_secret_value().strip())
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(f"{variable} is not an address; write http(s)://host[:port]/v1")
    if "@" in address.netloc or address.query or address.fragment:
        raise ConfigError(
            f"{variable} contains more than an address; set the key in "
            f"{_variable(access, 'API_KEY')}"
        )
    return address.geturl()


def _checked_key(access: ServerAccess) -> str:
    variable = _variable(access, "API_KEY")
    key = access.api_key.get_secret_value().strip() if access.api_key else ""
    if not key and access.base_url.get_secret_value() == _OPENAI:
        raise ConfigError(
            f"OpenAI's server needs a key; set {variable}, or set {_variable(access, 'BASE_URL')} "
            "to your own server"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{variable} has characters that are invalid in a key; copy it again")
    return key or NO_KEY


def _variable(access: ServerAccess, name: str) -> str:
    return f"{access.model_config['env_prefix']}{name}"
