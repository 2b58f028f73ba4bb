"""Outages: errors of what a run needs, whatever its data is.

An outage ends a run, and another run later may succeed: the store, MLflow, Prefect, a judge's or a
policy's server or the Hub does not answer, a pool has no workers, a disk is full, what a run needs
is missing where it runs (a key, a package), another process holds a lease, another promotion came
first in this moment. Out of memory is not an outage: a batch can be too large. Nor is a comparison
with a model that is no longer the champion: it comes again where the opponent is fixed. What is not
known to be an outage is none, so that an error which comes again at every attempt ends after a
number of them.

An error is looked at with all errors that led to it. Client libraries are recognised by the names
of their errors, so that none of them is imported here.
"""

import errno
import re
import socket
from collections.abc import Iterator, Mapping

from pvar.errors import (
    CoverageError,
    JudgeError,
    LeaseError,
    LostRaceError,
    MissingError,
    NotFoundError,
    StageError,
    StoreError,
    TrackingError,
    UnavailableError,
)

_OURS = (
    StoreError, TrackingError, JudgeError, LeaseError, LostRaceError, MissingError,
    UnavailableError,
)  # fmt: skip
_NOT_OURS = (NotFoundError, CoverageError)
"""Kinds of them that come again: an object is gone, a judge cannot judge these answers."""

_LIBRARIES = frozenset(
    {
        "boto3.Boto3Error",
        "botocore.BotoCoreError",
        "httpx.TransportError",
        "httpx2.TransportError",
        "huggingface_hub.LocalEntryNotFoundError",
        "huggingface_hub.OfflineModeIsEnabled",
        "infra.TransientError",
        "openai.APIConnectionError",
        "requests.ConnectionError",
        "requests.Timeout",
        "sqlalchemy.OperationalError",
        "urllib.URLError",
    }
)
"""Package and class of errors without an answer of a server; subclasses count."""

_SYSTEM = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EIO,
        errno.ESTALE,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    }
)
"""Disks and networks."""

_TOO_MANY_REQUESTS = 429

_REJECTED = (400, 404, 409, 413, 422)
"""Answers of MLflow's to a request that it would reject again."""

_TEXT = re.compile(
    r"\b(StoreError|TrackingError|JudgeError|BudgetError|LeaseError|LostRaceError|UnavailableError"
    r"|MlflowException|TransientError|ConnectionRefusedError|\w*TimeoutError|gaierror"
    r"|ConnectError|ConnectTimeout|ReadTimeout|ReadError|RemoteProtocolError"
    r"|(API|Endpoint)ConnectionError|LocalEntryNotFoundError|OfflineModeIsEnabled"
    r"|OperationalError|URLError)\b"
    r"|HTTP(Status)?Error: ((Server|Client) error ')?(5\d\d|429)\b"  # httpx, Prefect, requests, Hub
    r"|\bHTTPS?ConnectionPool\("  # requests
    r"|No space left on device|Disk quota exceeded|status code:? (-15|143)\b"
    r"|aborted by a termination signal|had not started \d+ minutes after a worker took it"
)
"""What is left of an error that another process, Prefect or infra/automations reported; 143 and -15
are the ends by SIGTERM."""

_MEMORY_TEXT = re.compile(r"\b(MemoryError|OutOfMemoryError)\b|out of memory", re.IGNORECASE)


def is_outage(error: BaseException) -> bool:
    """Whether the error, or one that led to it, is an outage, and none is out of memory."""
    chain = list(_chain(error))
    if any(_is_out_of_memory(link) for link in chain):
        return False
    return any(_is_outage(link) for link in chain)


def names_outage(text: str) -> bool:
    """The same for the message of an error in another process."""
    return _TEXT.search(text) is not None and _MEMORY_TEXT.search(text) is None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it. `raise … from None` hides one only from tracebacks."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _is_out_of_memory(error: BaseException) -> bool:
    described = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or _MEMORY_TEXT.search(described) is not None


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, TrackingError) and _is_rejected(error.__context__):
        return False
    if isinstance(error, _OURS):
        return not isinstance(error, _NOT_OURS)
    if isinstance(error, StageError):
        return names_outage(str(error))
    if isinstance(error, ConnectionRefusedError | TimeoutError | socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        return True
    status = _http_status(error)
    if status is not None:
        return status >= 500 or status == _TOO_MANY_REQUESTS
    return not _LIBRARIES.isdisjoint(_names(error))


def _is_rejected(error: BaseException | None) -> bool:
    """Whether MLflow would reject the request again. It has status 400 and the code BAD_REQUEST for
    most errors of its database, too, and other codes for a request that is wrong."""
    is_of_database = getattr(error, "error_code", None) == "BAD_REQUEST"
    return _http_status(error) in _REJECTED and not is_of_database


def _http_status(error: BaseException | None) -> int | None:
    """The status of a server's answer, as httpx, requests, openai, botocore and MLflow keep it."""
    if callable(status_of := getattr(error, "get_http_status_code", None)):
        return int(status_of())
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
