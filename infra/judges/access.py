"""Where a server is (a judge's, or the policy's), and its key: from the environment alone.

Neither enters a configuration, an identity, a log or an error; errors name the variables instead.
"""

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from pvar.errors import ConfigError

if TYPE_CHECKING:
    from openai import OpenAI

_OPENAI = "https://api.openai.com/v1"


class ServerAccess(BaseSettings):
    """An OpenAI-compatible server. Subclasses give the prefix of their variables.

    OPENAI_API_KEY is not read: a key must not travel to a server that it was not meant for.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, hide_input_in_errors=True)

    base_url: SecretStr = SecretStr(_OPENAI)
    """Address up to /v1; `vllm serve` has http://host:8000/v1."""

    api_key: SecretStr | None = None
    """Key; servers of one's own often want none."""


class JudgeAccess(ServerAccess, env_prefix="PVAR_JUDGE_"):
    """Where the judge's server is and its key: PVAR_JUDGE_BASE_URL and PVAR_JUDGE_API_KEY."""


def open_judge_client(access: ServerAccess, *, timeout_seconds: float) -> "OpenAI":
    """Set up the client; nothing is asked yet. Raises ConfigError for an unusable address or key.

    The client's loggers are kept at WARNING: their records hold the server's address.
    """
    from openai import OpenAI

    for name in ("openai", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return OpenAI(
        base_url=_checked_address(access),
        api_key=_checked_key(access),
        timeout=timeout_seconds,
        max_retries=0,  # infra/judges/patience.py does it
    )


def _checked_address(access: ServerAccess) -> str:
    variable = _variable(access, "BASE_URL")
    address = urlsplit(access.base_url.get_secret_value().strip())
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(f"{variable} is not an address; write http(s)://host[:port]/v1")
    if "@" in address.netloc or address.query or address.fragment:
        raise ConfigError(
            f"{variable} holds more than an address; put the key into "
            f"{_variable(access, 'API_KEY')}"
        )
    return address.geturl()


def _checked_key(access: ServerAccess) -> str:
    variable = _variable(access, "API_KEY")
    key = access.api_key.get_secret_value().strip() if access.api_key else ""
    if not key and access.base_url.get_secret_value() == _OPENAI:
        raise ConfigError(
            f"OpenAI's server wants a key: set {variable}, or {_variable(access, 'BASE_URL')} for "
            "a server of your own"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{variable} has characters that no key has; copy it again")
    return key or "none"  # the client wants one


def _variable(access: ServerAccess, name: str) -> str:
    return f"{access.model_config['env_prefix']}{name}"
