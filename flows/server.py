"""The Prefect server of PREFECT_API_URL, and what is wrong if it cannot be used."""

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from infra.addresses import without_credentials, without_secrets
from pvar.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from httpx import Response
    from prefect.client.orchestration import SyncPrefectClient

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""Limits of the first request, which is sent twice at most, and of each of the four attempts to
connect for it. Later requests have Prefect's own limits."""

SETTINGS_FILES = {"prefect.toml": "url", "pyproject.toml": "[tool.prefect", ".env": "PREFECT_API"}
"""Files of the working folder in which Prefect finds settings, and what names a server there."""

AGAIN = "run the same command again: what is complete is kept"


@contextmanager
def connected_client() -> "Iterator[SyncPrefectClient]":
    """A client of the server. Raises ConfigError if none is configured or it does not answer.

    UnavailableError if the server stops answering in the body.
    """
    from prefect.client.orchestration import get_client

    api = api_url()
    _refuse_unusable(api)
    with prefect_explained(api), get_client(sync_client=True) as client:
        yield client


def api_url() -> str:
    """Address of the server's API. Raises ConfigError if no server is configured."""
    with prefect_settings_explained():
        from prefect.settings import get_current_settings

        api = get_current_settings().api.url
    if api is None:
        raise ConfigError(
            "PREFECT_API_URL is not set; start a Prefect server with `pvar serve`, or set "
            "PREFECT_API_URL to the address of yours, such as http://host:4200/api"
        )
    return api


def has_configured_server() -> bool:
    """Whether PREFECT_API_URL is set, or may be set in a file that Prefect reads, to whose import
    this is the quick alternative."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        for name, mark in SETTINGS_FILES.items():
            if Path(name).is_file() and mark in Path(name).read_text("utf-8"):
                return True
        if not profiles.is_file():
            return False
        found = tomllib.loads(profiles.read_text("utf-8"))
        active = os.environ.get("PREFECT_PROFILE") or found.get("active")
        return "PREFECT_API_URL" in found.get("profiles", {}).get(active, {})
    except (OSError, ValueError, AttributeError):  # Prefect says what is wrong with it
        return True


@contextmanager
def prefect_settings_explained() -> Iterator[None]:
    """Turn the error of the body, in which Prefect reads its settings, into ConfigError."""
    try:
        yield
    except ValidationError as error:  # it also quotes the values
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        raise ConfigError(
            f"Prefect's settings are invalid: {f'{name}: ' if name else ''}{fault['msg']}; correct "
            "PREFECT_API_URL, other variables PREFECT_*, or Prefect's profile"
        ) from None


@contextmanager
def prefect_explained(api: str, *, advice: str | None = None) -> Iterator[None]:
    """Turn the body's errors of a Prefect server that no longer answers into UnavailableError."""
    from httpx import HTTPError

    try:
        yield
    except (HTTPError, RuntimeError) as error:
        if not _is_of_prefect(error, api):
            raise
        raise UnavailableError(
            f"the Prefect server at {without_credentials(api)} no longer answers: "
            f"{_cause(error, api)}; "
            + (advice or f"start it again or check PREFECT_API_URL, and {AGAIN}")
        ) from error


def _is_of_prefect(error: Exception, api: str) -> bool:
    """Whether a request to this server had no answer, or one that says that it is out of order."""
    from httpx import URL, HTTPStatusError, RequestError

    if not isinstance(error, HTTPStatusError | RequestError):
        return "Failed to reach API" in str(error)  # Prefect's
    try:
        asked, server = error.request.url, URL(api)
    except RuntimeError:  # it has no request
        return False
    if (asked.scheme, asked.netloc) != (server.scheme, server.netloc):
        return False
    if isinstance(error, HTTPStatusError):
        status = error.response.status_code
        return status >= 500 or status in (401, 403, 429)
    return True


def _cause(error: Exception, api: str) -> str:
    said = str(error).partition("\n")[0] or "no answer in time"
    return without_secrets(f"{type(error).__name__}: {said}", api)


def _refuse_unusable(api: str) -> None:
    """ConfigError unless Prefect's API is at the address; UnavailableError if it does not answer in
    limited time."""
    from httpx import HTTPStatusError, InvalidURL, RequestError, UnsupportedProtocol

    shown = without_credentials(api)
    try:
        answer = _ask(api)
    except HTTPStatusError as error:
        answer = error.response
    except (RequestError, InvalidURL, OSError, RuntimeError) as error:
        is_no_address = isinstance(error, InvalidURL | UnsupportedProtocol)
        raise (ConfigError if is_no_address else UnavailableError)(
            f"the Prefect server at {shown} does not answer: {_cause(error, api)}; start it, or "
            "unset PREFECT_API_URL"
        ) from None
    if answer.status_code in (401, 403):
        raise ConfigError(
            f"the Prefect server at {shown} refuses the credentials (HTTP {answer.status_code}); "
            "check PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
        )
    is_page = answer.headers.get("content-type", "").startswith("text/html")
    if answer.status_code >= 500 or answer.status_code == 429:
        raise UnavailableError(
            f"the Prefect server at {shown} does not answer: HTTP {answer.status_code}; look at "
            "its log, or unset PREFECT_API_URL"
        )
    if is_page or answer.status_code >= 400:
        advice = "" if shown.rstrip("/").endswith("/api") else ", with /api at its end"
        raise ConfigError(
            f"there is no API of Prefect at {shown} (HTTP {answer.status_code}"
            f"{', a web page' if is_page else ''}); set PREFECT_API_URL to the address of the API"
            f"{advice}, such as http://host:4200/api, or unset it"
        )


def _ask(api: str) -> "Response":
    from httpx import Timeout
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    limits = {"timeout": Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)}
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}),
        get_client(sync_client=True, httpx_settings=limits) as client,
    ):
        return client.request("GET", "/health")
