"""What is shown of an address and in an error about it."""

import pytest

from infra.addresses import without_credentials, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://ana:s3cr3t@host/mlflow", "https://host/mlflow"),
        ("postgresql://ana:s3cr3t@host:5432/name", "postgresql://host:5432/name"),
        ("postgresql://ana:s3@cr3t@host/name", "postgresql://host/name"),
        ("postgresql://host/name?user=ana&password=s3cr3t", "postgresql://host/name"),
        ("sqlite:////folder/mlflow.db", "sqlite:////folder/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_credentials(address: str, shown: str) -> None:
    assert without_credentials(address) == shown


@pytest.mark.parametrize(
    ("message", "address", "shown"),
    [
        ("cannot use http://host:5000", "http://host:5000", "cannot use …"),
        (
            "password authentication failed for s3/cr3t",
            "postgresql://ana:s3%2Fcr3t@host/name",
            "password authentication failed for …",
        ),
        (
            'could not translate host name "cr3t@host" to address',
            "postgresql://ana:s3@cr3t@host/name",
            'could not translate host name "…@host" to address',
        ),
        (
            "connection to http://ana:s3cr3t@host/api failed",
            "http://ana:s3cr3t@host/api",
            "connection to … failed",
        ),
        ("invalid option s3cr3t", "postgresql://host/name?password=s3cr3t", "invalid option …"),
    ],
)
def test_a_message_has_no_secrets(message: str, address: str, shown: str) -> None:
    assert without_secrets(message, address) == shown
