"""The Prefect server of PREFECT_API_URL: what has to be done there cannot be done without one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pvar.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextmanager
def connected_client() -> "Iterator[SyncPrefectClient]":
    """A client of the server; ConfigError if none is named or it does not answer."""
    from prefect.client.orchestration import get_client

    api = api_url()
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise ConfigError(
                f"the Prefect server at {api} does not answer: {error}; start it, or unset "
                "PREFECT_API_URL"
            ) from error
        yield client


def api_url() -> str:
    """Address of the server's API; ConfigError if none is named."""
    from prefect.settings import get_current_settings

    api = get_current_settings().api.url
    if api is None:
        raise ConfigError(
            "PREFECT_API_URL is not set: there is no Prefect server; start one with `pvar serve`, "
            "or give the address of yours, such as http://host:4200/api"
        )
    return api
