"""What is wrong with PREFECT_API_URL is said in one line, before anything starts."""

from collections.abc import Callable
from typing import NoReturn

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.server import connected_client, prefect_explained
from infra.outages import is_outage
from pvar.errors import ConfigError, PvarError, UnavailableError
from tests.services.loopback_http import Handler, Sent, listening, sent_json

API = "http://ana:s3cr3t@prefect.test:4200/api"


class Prefect(Handler):
    """Answers as Prefect's server: its pages at every path but those of the API."""

    def do_GET(self) -> None:
        """The health of the API, or a page."""
        page = Sent(b"<html>", content_type="text/html; charset=utf-8")
        self.send(sent_json(True) if self.path == "/api/health" else page)


class Locked(Handler):
    """A server that wants credentials."""

    def do_GET(self) -> None:
        """Refuse."""
        self.send(sent_json({"exception_message": "Unauthorized"}, 401))


class OtherServer(Handler):
    """A server of something else."""

    def do_GET(self) -> None:
        """It has no such path."""
        self.send(sent_json({"detail": "Not Found"}, 404))


class Broken(Handler):
    """A server whose database is gone."""

    def do_GET(self) -> None:
        """Fail."""
        self.send(sent_json({"exception_message": "Internal Server Error"}, 500))


def connect(api: str) -> None:
    with temporary_settings({PREFECT_API_URL: api}), connected_client():
        pass


@pytest.mark.parametrize(
    ("kind", "path", "said"),
    [
        (Prefect, "", r"no API of Prefect .* \(HTTP 200, a web page\); .* with /api at its end"),
        (OtherServer, "", r"no API of Prefect at \S+ \(HTTP 404\); .* with /api at its end"),
        (OtherServer, "/api", r"no API of Prefect at \S+ \(HTTP 404\); set PREFECT_API_URL"),
        (Locked, "/api", r"refuses the credentials \(HTTP 401\); check PREFECT_API_KEY"),
        (Broken, "/api", r"does not answer: HTTP 500; look at its log"),
    ],
)
def test_the_right_thing_is_blamed(kind: type[Handler], path: str, said: str) -> None:
    error = UnavailableError if kind is Broken else ConfigError  # a server may come back
    with listening(kind) as address, pytest.raises(error, match=said) as told:
        connect(f"{address.replace('http://', 'http://ana:s3cr3t@')}{path}")
    assert "s3cr3t" not in str(told.value)
    assert "\n" not in str(told.value)


def test_the_api_itself_is_accepted() -> None:
    with listening(Prefect) as address:
        connect(f"{address}/api")


@pytest.mark.parametrize(
    ("api", "error"),
    [("http://127.0.0.1:9/api", UnavailableError), ("127.0.0.1:9/api", ConfigError)],
)
def test_an_address_that_nobody_answers_is_named(api: str, error: type[PvarError]) -> None:
    with pytest.raises(error, match=r"Prefect server at \S+ does not answer: .*; start it"):
        connect(api)


def no_answer() -> NoReturn:
    raise httpx.ConnectError("refused", request=httpx.Request("POST", f"{API}/flow_runs/"))


def out_of_order() -> NoReturn:
    request = httpx.Request("GET", f"{API}/flow_runs/1")
    httpx.Response(503, request=request).raise_for_status()
    raise AssertionError


def unreached() -> NoReturn:
    raise RuntimeError(f"Flow run failed. Failed to reach API at {API}.")


@pytest.mark.parametrize("fail", [no_answer, out_of_order, unreached])
def test_a_server_that_stops_answering_is_an_outage(fail: Callable[[], NoReturn]) -> None:
    with pytest.raises(UnavailableError, match="no longer answers") as told, prefect_explained(API):
        fail()
    assert is_outage(told.value)
    assert "s3cr3t" not in str(told.value)


def of_a_judge() -> NoReturn:
    raise httpx.ConnectError("refused", request=httpx.Request("POST", "http://judge.test/v1"))


def without_request() -> NoReturn:
    raise httpx.ConnectError("refused")


def rejected() -> NoReturn:
    httpx.Response(422, request=httpx.Request("POST", f"{API}/flows/")).raise_for_status()
    raise AssertionError


def of_torch() -> NoReturn:
    raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("fail", [of_a_judge, without_request, rejected, of_torch])
def test_errors_of_others_are_left_as_they_are(fail: Callable[[], NoReturn]) -> None:
    with pytest.raises((httpx.HTTPError, RuntimeError)) as told, prefect_explained(API):
        fail()
    assert not isinstance(told.value, UnavailableError)
