"""Which addresses name a store, and that none of them holds a secret."""

import traceback
from pathlib import Path

import pytest

from infra.store import open_store
from pvar.errors import ConfigError


def test_a_path_and_its_file_address_are_one_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mein Ort"
    open_store("mein Ort").write("a", b"x")
    # RFC 8089: a space in a file address is %20.
    assert open_store(str(folder)).uri == f"file://{tmp_path}/mein%20Ort"
    for uri in (str(folder), folder.as_uri(), f"file://localhost{tmp_path}/mein%20Ort"):
        assert open_store(uri).read("a") == b"x"


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("file://relative/folder", "must not have a host"),
        ("file:relative", "not absolute"),
        ("ftp://host/folder", "ftp:// is not supported"),
        ("S3://Bucket/prefix", "is not an address; write s3://bucket/prefix"),
        ("s3://", "is not an address"),
        ("s3://b", "is not an address"),
        ("s3://bucket/prefix?versions=1", "is not an address"),
        ("s3://key:planted-secret@bucket/prefix", "contains credentials"),
        ("https://key:planted-secret@host/bucket", "https:// is not supported"),
        ("file://key:planted-secret@host/folder", "must not have a host"),
    ],
)
def test_what_names_no_store_is_refused_without_repeating_secrets(uri: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        open_store(uri)
    assert "planted-secret" not in "".join(traceback.format_exception(caught.value))
