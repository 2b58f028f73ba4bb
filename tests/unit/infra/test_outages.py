"""What is an outage, and what a batch can be the cause of."""

import errno
from importlib.resources import files
from typing import Any

import httpx
import pytest
import requests
import sqlalchemy.exc
import sqlalchemy.orm
import yaml
from botocore.exceptions import ClientError, EndpointConnectionError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.db.utils import _get_managed_session_maker
from openai import APIConnectionError

from infra.judges.calls import TransientError
from infra.mlflow_errors import mlflow_errors_explained
from infra.outages import is_outage
from pvar.errors import (
    BudgetError,
    ConfigError,
    CoverageError,
    DamagedError,
    InputError,
    JudgeError,
    LeaseError,
    LostRaceError,
    MissingError,
    ModelError,
    NotFoundError,
    PromotionError,
    PvarError,
    ScoringError,
    StageError,
    StoreError,
    TrackingError,
    UnavailableError,
)

REQUEST = httpx.Request("GET", "http://prefect.test/api")


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.InterfaceError("SELECT 1", {}, Exception("connection already closed")),
        sqlalchemy.exc.TimeoutError("QueuePool limit reached"),
        sqlalchemy.exc.DatabaseError("SELECT 1", {}, Exception("disk image is malformed")),
        MissingError("evaluate.judge: set PVAR_JUDGE_API_KEY"),
    ],
)
def test_an_error_of_mlflows_database_is_an_outage_also_as_a_bad_request(error: Exception) -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    session = _get_managed_session_maker(sqlalchemy.orm.sessionmaker(engine), "sqlite")
    explained = mlflow_errors_explained("sqlite:///mlflow.db")
    with pytest.raises(TrackingError) as told, explained, session():
        raise error
    assert is_outage(told.value)


class OutOfMemoryError(RuntimeError):
    """As torch's."""


def placed(said: str) -> StageError:
    """The error of a placed stage whose run failed with this exception, in Prefect's words."""
    return StageError(
        "sample on sample/sample-process: run sample is Failed: Flow run encountered an exception: "
        + said
    )


def in_text(error: Exception) -> StageError:
    return placed(f"{type(error).__name__}: {error}")


def with_reason(status: int) -> Exception:
    """An error as httpx itself makes it of a server's answer; Prefect's class has another name."""

    class PrefectHTTPStatusError(httpx.HTTPStatusError):
        pass

    try:
        httpx.Response(status, request=REQUEST).raise_for_status()
    except httpx.HTTPStatusError as error:
        return PrefectHTTPStatusError(str(error), request=error.request, response=error.response)
    raise AssertionError(status)


def refused() -> requests.HTTPError:
    """As requests makes it, and the Hub's client after it."""
    response = requests.Response()
    response.status_code, response.reason, response.url = 503, "Service Unavailable", "http://hub"
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        return error
    raise AssertionError


def start_lost() -> str:
    text = files("infra").joinpath("automations", "start-lost.yaml").read_text(encoding="utf-8")
    return str(yaml.safe_load(text)["actions"][0]["message"])


def answered(status: int) -> httpx.HTTPStatusError:
    response = httpx.Response(status, request=REQUEST)
    return httpx.HTTPStatusError(str(status), request=REQUEST, response=response)


def s3_answered(status: int) -> ClientError:
    response: Any = {"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")


def led_to(cause: Exception, error: Exception, *, hidden: bool = False) -> Exception:
    """The error as it is when raised while `cause` was handled, `hidden` by `from None`."""
    error.__context__ = cause
    error.__suppress_context__ = hidden
    return error


@pytest.mark.parametrize(
    "error",
    [
        StoreError("s3://pvar: cannot read"),
        TrackingError("MLflow cannot be used"),
        JudgeError("the last 24 calls all failed"),
        BudgetError("spent"),
        LeaseError("taken over"),
        MlflowException("API request failed"),
        led_to(MlflowException("API request failed"), TrackingError("MLflow cannot be used")),
        EndpointConnectionError(endpoint_url="http://s3.test"),
        requests.ConnectionError("refused"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("late"),
        answered(503),
        s3_answered(503),
        answered(429),
        APIConnectionError(request=REQUEST),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        TimeoutError(),
        OSError(errno.ENOSPC, "No space left on device"),
        led_to(httpx.ConnectError("refused"), RuntimeError("Failed to reach API")),
        led_to(TransientError("http_503"), ModelError("the server did not answer"), hidden=True),
        StageError("train failed with exit code 1: OSError: [Errno 28] No space left on device"),
        StageError("run train is Failed: Flow run encountered an exception: TrackingError: gone"),
        StageError("run train is Crashed: Process exited with status code: -15."),
        StageError("run train is Crashed: Execution was aborted by a termination signal."),
        StageError(f"run train is Crashed: {start_lost()}"),
        LostRaceError("another promotion came first"),
        UnavailableError("the policy's server did not answer"),
        in_text(LostRaceError("another promotion came first")),
        in_text(UnavailableError("the policy's server did not answer (http_503, 5 attempts)")),
        in_text(TimeoutError()),
        in_text(httpx.ReadTimeout("late")),
        in_text(APIConnectionError(request=REQUEST)),
        in_text(with_reason(503)),
        in_text(with_reason(429)),
        in_text(refused()),
        placed("ConnectionError: HTTPSConnectionPool(host='mlflow', port=443): Max retries"),
    ],
    ids=repr,
)
def test_outages_are_not_the_data_s_fault(error: Exception) -> None:
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        InputError("no prompts"),
        NotFoundError("no object"),
        DamagedError("sha256 differs"),
        CoverageError("5 of 20 pairs are judged"),
        ModelError("no such folder"),
        ConfigError("no such key"),
        ScoringError("NaN"),
        PromotionError("version 3 was compared with start-1, but the champion is version 2"),
        in_text(PromotionError("version 3 was compared with start-1")),
        in_text(ModelError("no such folder")),
        in_text(with_reason(404)),
        ValueError("a bug"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        answered(404),
        led_to(s3_answered(404), NotFoundError("no object")),
        led_to(
            MlflowException("gone", error_code=RESOURCE_DOES_NOT_EXIST), ModelError("no version 9")
        ),
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        led_to(OutOfMemoryError("CUDA out of memory"), StageError("train failed")),
        led_to(
            MlflowException("too long", error_code=INVALID_PARAMETER_VALUE),
            TrackingError("MLflow cannot be used"),
        ),
        led_to(MemoryError(), TrackingError("MLflow cannot be used")),
        StageError("train failed with exit code 1: torch.OutOfMemoryError: CUDA out of memory"),
        StageError("run train is Crashed: Process exited with status code: -9."),
    ],
    ids=repr,
)
def test_what_a_batch_may_cause_and_what_is_unknown_counts(error: Exception) -> None:
    assert not is_outage(error)


def test_errors_that_led_to_each_other_in_a_circle_come_to_an_end() -> None:
    first, second = PvarError("first"), PvarError("second")
    first.__context__, second.__context__ = second, first
    assert not is_outage(first)
