"""How a test reaches an S3 server and gets a store of its own on it."""

import uuid
from typing import TYPE_CHECKING, NamedTuple

import boto3
from pydantic import SecretStr

from infra.settings import S3Access
from infra.store import open_store
from pvar.ports import Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3Server(NamedTuple):
    """A running server with one user, who may make buckets."""

    endpoint: str
    access_key: str
    secret_key: str

    def access(self) -> S3Access:
        """The server's address and credentials, as `open_store` takes them."""
        return S3Access(
            endpoint_url=self.endpoint,
            region="us-east-1",
            access_key_id=self.access_key,
            secret_access_key=SecretStr(self.secret_key),
        )

    def environment(self) -> dict[str, str]:
        """The same for a process of its own."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self) -> "S3Client":
        """A plain client, to look behind the store."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )

    def new_bucket(self) -> str:
        """Make an empty bucket."""
        bucket = f"pvar-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def new_store(self) -> Store:
        """An empty store in a bucket of its own."""
        return open_store(f"s3://{self.new_bucket()}/artifacts", access=self.access())
