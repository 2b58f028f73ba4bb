"""Objects in an S3 bucket, or below a prefix of it, through boto3.

`create` is a put with `If-None-Match: *`. Not every server supports it, so the first `create` tests
it (a probe object, written twice). If the server ignores it, a weaker method is used, with a
warning: check, put, wait `SETTLE_SECONDS`, check whose object exists. Two writers can both succeed
only if one of them takes longer than that between its check and its put.

Checksums are sent and checked only if S3 requires them, because servers other than Amazon's often
lack the newer ones. Stored data is verified by the manifests' sha256. A process killed during a
multipart upload leaves invisible parts in the bucket: add a lifecycle rule that aborts them.
"""

import logging
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from infra.settings import S3Access
from infra.store.disk import cause
from infra.store.keys import TEMPORARY, check_key, check_prefix
from infra.store.s3_errors import THROTTLED_CODES, THROTTLED_STATUS, code, explained
from pvar.errors import ConfigError, StoreError
from pvar.ports import ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger(__name__)

PART_BYTES = 16 << 20
"""Larger files are uploaded in parts of this size, 8 at a time."""

SETTLE_SECONDS = 2.0
"""How long the weaker `create` waits for other writers."""

_CONFLICT_ATTEMPTS = 5

_TRANSFER = TransferConfig(
    multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=8
)

MAX_THROTTLED_ATTEMPTS = 9
MAX_PAUSE_SECONDS = 8.0

# Three attempts at 3 s each: a server that is not there is an error within some seconds. One that
# asks to be asked less is given more time (`throttle_pause`).
_CLIENT = Config(
    connect_timeout=3,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=32,
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)


class S3Store:
    """A `Store` in a bucket. Threads may share it; the client is boto3's own."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self._honours_put_if_absent: bool | None = None

    @property
    def uri(self) -> str:
        """The s3:// address, without credentials."""
        return f"s3://{self._bucket}/{self._root}".rstrip("/")

    def read(self, key: str) -> bytes:
        """Return the object's bytes."""
        with self._explained("read", key):
            return _read(self._client, self._bucket, self._name(key))

    def write(self, key: str, data: bytes) -> None:
        """Put the object, replacing what is there."""
        with self._explained("write", key):
            self._client.put_object(Bucket=self._bucket, Key=self._name(key), Body=data)

    def create(self, key: str, data: bytes) -> bool:
        """Put the object if it does not exist; otherwise return False."""
        name = self._name(key)
        with self._explained("create", key):
            if self.honours_put_if_absent():
                return _put_if_absent(self._client, self._bucket, name, data)
            return _put_and_look(self._client, self._bucket, name, data)

    def download(self, key: str, path: Path) -> None:
        """Copy the object to a local file, which appears when it is complete."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._explained("download", key):
                self._client.download_file(
                    self._bucket, self._name(key), str(path), Config=_TRANSFER
                )
        except OSError as error:
            why = cause(error, path.parent, "choose another folder")
            raise StoreError(f"{self.uri}: cannot download {key!r} to {path}: {why}") from error

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file into the store, as a multipart upload if it is large."""
        with path.open("rb") as file, self._explained("upload", key):
            self._client.upload_fileobj(file, self._bucket, self._name(key), Config=_TRANSFER)

    def list(self, prefix: str, depth: int | None = None) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, at most `depth` folders deep, in key order.

        The empty objects that S3's consoles and tools make for folders are left out: their names
        end with a slash, or are that of the store itself.
        """
        start = self._root + check_prefix(prefix)
        pages = self._client.get_paginator("list_objects_v2")
        with self._explained("list", prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=start):
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self._root)
                    is_folder = not key or key.endswith("/")
                    is_deeper = depth is not None and key.count("/", len(prefix)) > depth
                    if not is_folder and not is_deeper and not key.startswith(f"{TEMPORARY}/"):
                        modified = item["LastModified"].astimezone(UTC)
                        etag = item.get("ETag", "").strip('"')
                        yield ObjectInfo(key, item["Size"], modified, etag)

    def delete(self, key: str) -> None:
        """Remove the object. No error if it does not exist."""
        with self._explained("delete", key):
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def honours_put_if_absent(self) -> bool:
        """Whether the server's `If-None-Match: *` works; tested once, by two puts and a delete."""
        if self._honours_put_if_absent is None:
            name = f"{self._root}{TEMPORARY}/probe-{uuid.uuid4().hex}"
            with self._explained("probe", name):
                self._honours_put_if_absent = _probe(self._client, self._bucket, name)
            if not self._honours_put_if_absent:
                _log.warning(
                    "%s ignores put-if-absent (If-None-Match): creating an object waits %.0f s "
                    "and checks again instead; two concurrent runs may both do the work",
                    self._client.meta.endpoint_url,
                    SETTLE_SECONDS,
                )
        return self._honours_put_if_absent

    def _name(self, key: str) -> str:
        return self._root + check_key(key)

    def _explained(self, verb: str, key: str) -> AbstractContextManager[None]:
        return explained(self.uri, self._client.meta.endpoint_url, verb, key)


def open_s3_store(bucket: str, prefix: str, access: S3Access) -> S3Store:
    """Open `s3://bucket/prefix` without a request."""
    if prefix:
        check_key(prefix)
    return S3Store(_client(access), bucket, prefix)


def _client(access: S3Access) -> "S3Client":
    address = urlsplit(access.endpoint_url or "https://")
    if address.scheme not in ("http", "https") or "@" in address.netloc:
        raise ConfigError(
            "AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) is not an address; write "
            "http://host:port or https://host, without credentials"
        )
    secret, token = access.secret_access_key, access.session_token
    try:
        # A session of its own: boto3's shared one keeps the credentials it once found.
        client = boto3.Session().client(
            "s3",
            endpoint_url=access.endpoint_url,
            region_name=access.region,
            aws_access_key_id=access.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            aws_session_token=token.get_secret_value() if token else None,
            config=_CLIENT,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"S3 cannot be set up from the AWS_* variables: {error}") from error
    pauses: Any = throttle_pause  # what it returns counts, which boto3's types do not say
    client.meta.events.register_first("needs-retry.s3", pauses)
    return client


def throttle_pause(
    attempts: int, response: tuple[Any, dict[str, Any]] | None, **_: object
) -> float | None:
    """Seconds to wait before a request is repeated of which the server said "not now".

    None leaves the decision to botocore, whose three attempts are over within two seconds: S3 may
    say so for as long as it takes to divide a busy bucket. The pauses double from half a second to
    `MAX_PAUSE_SECONDS`, 40 s in sum, and differ by chance, so that workers do not return together.
    """
    if response is None or attempts >= MAX_THROTTLED_ATTEMPTS:
        return None
    http, parsed = response
    code = parsed.get("Error", {}).get("Code")
    if http.status_code not in THROTTLED_STATUS and code not in THROTTLED_CODES:
        return None
    pause: float = min(0.5 * 2 ** (attempts - 1), MAX_PAUSE_SECONDS)
    if attempts == 1:
        _log.info("S3 asks to be asked less (%s): waiting", code or http.status_code)
    return pause * random.uniform(0.8, 1.2)  # noqa: S311


@retry(
    # botocore retries until the answer begins; the rest of it is ours.
    retry=retry_if_exception_type((IncompleteReadError, ReadTimeoutError, ResponseStreamingError)),
    stop=stop_after_attempt(3),
    reraise=True,
)
def _read(client: "S3Client", bucket: str, name: str) -> bytes:
    return client.get_object(Bucket=bucket, Key=name)["Body"].read()


def _put_if_absent(client: "S3Client", bucket: str, name: str, data: bytes) -> bool:
    """Put with `If-None-Match: *`; False if the object exists."""
    writer = uuid.uuid4().hex
    for _ in range(_CONFLICT_ATTEMPTS):
        try:
            client.put_object(
                Bucket=bucket, Key=name, Body=data, IfNoneMatch="*", Metadata={"writer": writer}
            )
        except ClientError as error:
            match error.response["ResponseMetadata"]["HTTPStatusCode"]:
                case 412:
                    # botocore repeats a put whose answer got lost; then the object may be ours.
                    is_repeated = error.response["ResponseMetadata"]["RetryAttempts"] > 0
                    return is_repeated and _writer(client, bucket, name) == writer
                case 409:  # another client writes or deletes it at this moment
                    time.sleep(random.uniform(0.05, 0.2))  # noqa: S311
                case _:
                    raise
        else:
            return True
    return False


def _put_and_look(client: "S3Client", bucket: str, name: str, data: bytes) -> bool:
    """The weaker `create`: the last of the writers who saw no object wins."""
    if _writer(client, bucket, name) is not None:
        return False
    writer = uuid.uuid4().hex
    client.put_object(Bucket=bucket, Key=name, Body=data, Metadata={"writer": writer})
    time.sleep(SETTLE_SECONDS)
    return _writer(client, bucket, name) == writer


def _writer(client: "S3Client", bucket: str, name: str) -> str | None:
    """The creator of the object ("" if unknown); None if there is no object."""
    try:
        return client.head_object(Bucket=bucket, Key=name)["Metadata"].get("writer", "")
    except ClientError as error:
        if code(error) == "404":
            return None
        raise


def _probe(client: "S3Client", bucket: str, name: str) -> bool:
    """Whether the second of two put-if-absent requests is rejected."""
    try:
        _put_if_absent(client, bucket, name, b"")
        is_refused = not _put_if_absent(client, bucket, name, b"")
    except ClientError as error:
        if code(error) == "NotImplemented":
            return False
        raise
    client.delete_object(Bucket=bucket, Key=name)
    return is_refused
