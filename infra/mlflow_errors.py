"""What MLflow raises, and the libraries below it, as errors of `pvar.errors`.

An error has MLflow's address without credentials, and the first line of what was said, without the
SQL statement or HTML page that MLflow adds.
"""

import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from infra.addresses import has_credentials, without_credentials, without_secrets
from pvar.errors import StoreError, TrackingError

MAX_CAUSE_CHARACTERS = 600


class _HasAddress(Protocol):
    @property
    def tracking_uri(self) -> str: ...


_S = TypeVar("_S", bound=_HasAddress)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def mlflow_explained(
    method: Callable[Concatenate[_S, _P], _R],
) -> Callable[Concatenate[_S, _P], _R]:
    """Turn the exceptions of MLflow and of the libraries below it into those of `pvar.errors`."""

    @wraps(method)
    def call(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with mlflow_errors_explained(self.tracking_uri):
            return method(self, *args, **kwargs)

    return call


@contextmanager
def mlflow_errors_explained(tracking_uri: str) -> Iterator[None]:
    """Turn the body's exceptions of MLflow, of its database or of requests into TrackingError.

    StoreError if the store's server refuses a file that MLflow's client reads or writes.
    """
    try:
        yield
    except Exception as error:  # of several libraries, which are not loaded without one
        explained = _explained(error, tracking_uri)
        if explained is None:
            raise
        # Tracebacks quote credentials.
        raise explained from (None if has_credentials(tracking_uri) else error)


def _explained(error: Exception, tracking_uri: str) -> TrackingError | StoreError | None:
    """What to say of it; None if it is not MLflow's, nor of the libraries below it."""
    from alembic.util.exc import CommandError
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    match error:
        case Boto3Error() | BotoCoreError() | ClientError():
            return StoreError(
                f"MLflow's files in the store cannot be read or written: {first_line(error)}; "
                "check AWS_ENDPOINT_URL_S3 and AWS_*, and that the server runs"
            )
        case MlflowException() | SQLAlchemyError() | CommandError() | RequestException():
            return unusable_mlflow(tracking_uri, error)
    return None


def first_line(error: Exception) -> str:
    """The message of an error, without the SQL statement or HTML page that MLflow adds."""
    said = re.sub(r"\(raised as a result of Query-invoked autoflush;.*\n", "", str(error))
    return textwrap.shorten(said.partition("\n")[0], MAX_CAUSE_CHARACTERS, placeholder=" …")


def unusable_mlflow(tracking_uri: str, error: Exception) -> TrackingError:
    """The error with MLflow's address, without credentials."""
    cause = without_secrets(first_line(error), tracking_uri)
    return TrackingError(
        f"MLflow at {without_credentials(tracking_uri)} cannot be used: {cause}; check "
        "PVAR_MLFLOW_TRACKING_URI (unset it for a local database) and that it runs, and run the "
        "same command again: what is complete is kept"
    )
