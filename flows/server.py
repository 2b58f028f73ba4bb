"""The Prefect server of PREFECT_API_URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pvar.errors import ConfigError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextmanager
def connected_client() -> "Iterator[SyncPrefectClient]":
    """A client of the server. Raises ConfigError if none is configured or it does not answer."""
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
    """Address of the server's API. Raises ConfigError if no server is configured."""
    from prefect.settings import get_current_settings

    api = get_current_settings().api.url
    if api is None:
        raise ConfigError(
            "PREFECT_API_URL is not set; start a Prefect server with `pvar serve`, or set "
            "PREFECT_API_URL to the address of yours, such as http://host:4200/api"
        )
    return api
