"""Open an artifact store by its address: a folder or an S3 bucket, with the same behaviour.

    open_store("runs/store")                 a folder
    open_store("file:///data/pvar")          a folder
    open_store("s3://bucket/prefix")         a bucket, or a part of one (infra.settings.S3Access)

An address must not contain credentials, because it appears in logs and manifests.
"""

import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from infra.settings import S3Access
from infra.store.file_store import open_file_store
from pvar.errors import ConfigError
from pvar.ports import Store

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(uri: str, *, access: S3Access | None = None) -> Store:
    """Open the store at `uri`; `access` defaults to the environment's.

    No request is sent yet: if the server does not answer, the first read raises StoreError. Raises
    ConfigError for an invalid address.
    """
    address = urlsplit(uri)
    if address.scheme in ("", "file"):
        return open_file_store(_folder(uri, address))
    if address.scheme == "s3":
        return _open_s3(address, access or S3Access())
    raise ConfigError(
        f"{address.scheme}:// is not supported; set PVAR_STORE_URI to a folder, "
        "file:///folder or s3://bucket/prefix"
    )


def _folder(uri: str, address: SplitResult) -> Path:
    if not address.scheme:
        return Path(uri).expanduser().absolute()
    if address.netloc not in ("", "localhost"):
        raise ConfigError("a file:// store must not have a host; write file:///absolute/folder")
    if not address.path.startswith("/"):
        raise ConfigError(f"{uri} is not absolute; write file:///absolute/folder")
    return Path(url2pathname(address.path))


def _open_s3(address: SplitResult, access: S3Access) -> Store:
    # A file system's users need no boto3.
    from infra.store.s3_store import open_s3_store

    if "@" in address.netloc:
        raise ConfigError(
            "the s3:// address contains credentials; write s3://bucket/prefix and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not _BUCKET.fullmatch(address.netloc) or address.query or address.fragment:
        raise ConfigError(f"{address.geturl()} is not an address; write s3://bucket/prefix")
    return open_s3_store(address.netloc, address.path.strip("/"), access)
