"""Turn errors of an S3 server or boto3 into StoreError: the cause and what to do.

For errors about credentials the server's text is left out, because it may quote the request.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as NoConnectionError

from pvar.errors import NotFoundError, StoreError

THROTTLED_STATUS = (429, 503)
THROTTLED_CODES = ("SlowDown", "ServiceUnavailable", "TooManyRequests", "Throttling")
"""A server that asks to be asked less: for some seconds, not for the reason of one request."""

_KEYS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
_ENDPOINT = "AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL)"


@contextmanager
def explained(uri: str, endpoint: str, verb: str, key: str) -> Iterator[None]:
    """Turn the errors of the body, which does `verb` to `key`, into StoreError.

    NotFoundError if a reader gets "no such object". A writer's 404 has another cause: a web server
    that is not S3.
    """
    try:
        yield
    except ClientError as error:
        if verb in ("read", "download") and code(error) in ("NoSuchKey", "404"):
            raise NotFoundError(f"{uri}: there is no object {key!r}") from error
        raise StoreError(
            f"{uri}: cannot {verb} {key!r}: {_refusal(error, uri, endpoint)}"
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        raise StoreError(f"{uri}: cannot {verb} {key!r}: {_failure(error, endpoint)}") from error


def code(error: ClientError) -> str:
    """The server's error code (`NoSuchKey`), or the HTTP status if there is no body (HEAD)."""
    return error.response.get("Error", {}).get("Code", "")


def _refusal(error: ClientError, uri: str, endpoint: str) -> str:
    match code(error):
        case "NoSuchBucket":
            bucket = uri.removeprefix("s3://").partition("/")[0]
            return f"{endpoint} has no bucket {bucket!r}; create it or correct PVAR_STORE_URI"
        case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken":
            return f"{endpoint} does not accept the credentials ({code(error)}); check {_KEYS}"
        case "AccessDenied" | "403":
            return f"{endpoint} denies access; check {_KEYS} and their permissions"
        case busy if busy in (*THROTTLED_CODES, *map(str, THROTTLED_STATUS)):
            return (
                f"{endpoint} still asks to be asked less ({busy}) after all pauses; run again "
                "later or with fewer workers: what is complete is kept"
            )
        case other:
            return f"{endpoint} answers {other}: {error.response['Error'].get('Message')}"


def _failure(error: BotoCoreError | Boto3Error, endpoint: str) -> str:
    match error:
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError():
            return f"there are no credentials for {endpoint}; set {_KEYS}, or a profile"
        case NoConnectionError() | HTTPClientError():
            return (
                f"no answer from {endpoint} ({type(error).__name__}); "
                f"check {_ENDPOINT} and that the server runs"
            )
        case _:
            return f"{type(error).__name__}: {error}"
