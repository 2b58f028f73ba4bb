"""What an S3 server may do wrong, and what the user then reads."""

import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from infra.settings import S3Access
from infra.store import open_store
from infra.store.s3_errors import explained
from infra.store.s3_store import throttle_pause
from pvar.errors import ConfigError, NotFoundError, StoreError
from pvar.ports import Store
from tests.services.processes import free_port
from tests.services.s3 import S3Server
from tests.services.s3_proxy import Fault, faulty


@pytest.mark.parametrize(
    "fault",
    [Fault.IGNORES_CONDITIONS, pytest.param(Fault.REFUSES_CONDITIONS, marks=pytest.mark.slow)],
)
def test_without_put_if_absent_create_still_does_not_replace_and_warns(
    moto_s3: S3Server, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    with faulty(moto_s3, fault) as server, caplog.at_level(logging.WARNING):
        store = server.new_store()
        assert store.create("lease.json", b"first")
        assert not store.create("lease.json", b"second")
        assert store.read("lease.json") == b"first"
        store.write("manifest.json", b"written")
        assert not store.create("manifest.json", b"created")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{server.endpoint} ignores put-if-absent")


def test_without_put_if_absent_two_who_saw_nothing_agree_on_one(moto_s3: S3Server) -> None:
    with faulty(moto_s3, Fault.IGNORES_CONDITIONS_AND_LAGS) as server:
        store = server.new_store()
        store.create("free", b"")  # the probe is behind us
        with ThreadPoolExecutor(2) as pool:
            won = list(pool.map(lambda data: store.create("contested", data), (b"0", b"1")))
        assert sum(won) == 1
        assert store.read("contested") == str(won.index(True)).encode()


def test_a_server_that_honours_put_if_absent_is_asked_once_and_keeps_no_trace(
    moto_s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = moto_s3.new_bucket()
    store = open_store(f"s3://{bucket}", access=moto_s3.access())
    with caplog.at_level(logging.WARNING):
        assert store.create("a", b"")
        assert not store.create("a", b"")
    assert not caplog.records
    listing = moto_s3.client().list_objects_v2(Bucket=bucket)
    assert [item["Key"] for item in listing["Contents"]] == ["a"]


def test_what_a_killed_probe_left_is_not_listed(moto_s3: S3Server) -> None:
    bucket = moto_s3.new_bucket()
    moto_s3.client().put_object(Bucket=bucket, Key="runs/.tmp/probe-1")
    assert list(open_store(f"s3://{bucket}/runs", access=moto_s3.access()).list("")) == []


@pytest.mark.parametrize("fault", [Fault.LOSES_ANSWERS, Fault.CONFLICTS_ONCE])
def test_a_creator_whose_put_is_repeated_knows_that_it_won(
    moto_s3: S3Server, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    with faulty(moto_s3, fault) as server, caplog.at_level(logging.WARNING, "infra.store"):
        store = server.new_store()
        assert store.create("lease.json", b"mine")
        assert not store.create("lease.json", b"yours")
        assert store.read("lease.json") == b"mine"
    # Neither fault makes it a server that ignores conditions.
    assert not [record for record in caplog.records if record.name.startswith("infra.store")]


def test_a_writer_is_not_told_that_its_object_is_missing(moto_s3: S3Server) -> None:
    # A web server that is no S3 answers 404 to everything; here, moto below its own pages.
    access = moto_s3._replace(endpoint=f"{moto_s3.endpoint}/moto-api/nothing").access()
    with pytest.raises(StoreError, match="answers 404") as caught:
        open_store("s3://bucket", access=access).write("a", b"")
    assert not isinstance(caught.value, NotFoundError)


def test_a_reading_that_breaks_off_is_repeated(moto_s3: S3Server, tmp_path: Path) -> None:
    data = Random(3).randbytes(300_000)
    with faulty(moto_s3, Fault.CUTS_ANSWERS) as server:
        store = server.new_store()
        for key in ("read", "download"):
            store.write(key, data)
        assert store.read("read") == data
        store.download("download", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data


@pytest.mark.slow
def test_a_server_that_is_busy_for_seconds_is_asked_again(
    moto_s3: S3Server, tmp_path: Path
) -> None:
    """More often than botocore does by itself, for each part of each kind of request."""
    uri, large = f"s3://{moto_s3.new_bucket()}/artifacts", Random(3).randbytes(17 << 20)
    (tmp_path / "large").write_bytes(large)
    behind = open_store(uri, access=moto_s3.access())
    behind.upload(tmp_path / "large", "there/large")
    with faulty(moto_s3, Fault.SLOWS_DOWN) as server, ThreadPoolExecutor() as pool:
        store = open_store(uri, access=server.access())
        done = [
            pool.submit(store.upload, tmp_path / "large", "here/large"),  # begin, parts, end
            pool.submit(store.download, "there/large", tmp_path / "copy"),
            pool.submit(lambda: [info.key for info in store.list("there/")]),
            pool.submit(store.create, "lease", b"mine"),
            pool.submit(store.delete, "nothing"),
        ]
        results = [each.result() for each in done]
    assert results[2:4] == [["there/large"], True]
    assert (tmp_path / "copy").read_bytes() == behind.read("here/large") == large
    assert behind.read("lease") == b"mine"


@pytest.mark.parametrize("error_code", ["SlowDown", "503"])
def test_a_server_that_stays_busy_is_named_so(error_code: str) -> None:
    refusal = ClientError({"Error": {"Code": error_code, "Message": "reduce"}}, "PutObject")
    with (
        pytest.raises(StoreError, match=rf"asked less \({error_code}\).*run again later"),
        explained("s3://bucket", "http://host", "write", "a"),
    ):
        raise refusal


def test_what_s3_consoles_make_for_folders_is_not_listed(moto_s3: S3Server) -> None:
    bucket, client = moto_s3.new_bucket(), moto_s3.client()
    for key in ("runs/", "runs/train/", "runs/train/ab12/", "runs/train/ab12/manifest.json"):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
    store = open_store(f"s3://{bucket}/runs", access=moto_s3.access())
    for prefix in ("", "train/", "train/ab12/"):
        assert [info.key for info in store.list(prefix)] == ["train/ab12/manifest.json"]
    assert list(store.list("train/cd34/")) == []


def test_pauses_double_and_end() -> None:
    busy = SimpleNamespace(status_code=503)
    pauses = [throttle_pause(attempts=number, response=(busy, {})) for number in range(1, 9)]
    wanted = [0.5, 1, 2, 4, 8, 8, 8, 8]
    assert all(p and 0.8 * w <= p <= 1.2 * w for p, w in zip(pauses, wanted, strict=True))
    assert throttle_pause(attempts=9, response=(busy, {})) is None
    fine = SimpleNamespace(status_code=200)
    in_answer = {"Error": {"Code": "SlowDown"}}  # as S3 may in the answer to a copy
    assert throttle_pause(attempts=1, response=(fine, in_answer))
    for status in (200, 403, 404, 500):
        other = SimpleNamespace(status_code=status)
        assert throttle_pause(attempts=1, response=(other, {})) is None
    assert throttle_pause(attempts=1, response=None, caught_exception=OSError()) is None


def test_a_large_file_goes_in_parts(moto_s3: S3Server, tmp_path: Path) -> None:
    bucket = moto_s3.new_bucket()
    path = tmp_path / "model"
    path.write_bytes(bytes(40 << 20))
    open_store(f"s3://{bucket}", access=moto_s3.access()).upload(path, "model")
    # S3 ends the ETag of an object of three parts with -3; parts are 16 MiB.
    assert moto_s3.client().head_object(Bucket=bucket, Key="model")["ETag"].endswith('-3"')


def test_an_address_that_nobody_answers_is_named(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    access = S3Access(
        endpoint_url=endpoint, access_key_id="me", secret_access_key=SecretStr("planted-secret")
    )
    store = open_store("s3://bucket/prefix", access=access)
    with pytest.raises(StoreError) as caught:
        store.read("manifest.json")
    assert str(caught.value) == (
        f"s3://bucket/prefix: cannot read 'manifest.json': no answer from {endpoint} "
        "(EndpointConnectionError); check AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) and that "
        "the server runs"
    )
    assert "planted-secret" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_bucket_is_named(moto_s3: S3Server, tmp_path: Path) -> None:
    store = open_store("s3://not-there/x", access=moto_s3.access())
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for operation in (
        lambda: store.read("a"),
        lambda: store.write("a", b""),
        lambda: store.create("a", b""),
        lambda: store.upload(path, "a"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreError, match=r"has no bucket 'not-there'; create it"):
            operation()


def test_missing_credentials_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"no credentials for http://127\.0\.0\.1:9; set AWS"):
        open_store("s3://bucket").read("a")


def test_the_standard_variables_say_where_s3_is(
    moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto_s3.environment().items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{moto_s3.new_bucket()}")
    store.write("a", b"x")
    assert store.read("a") == b"x"


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "http://me:planted-secret@host", "s3://b"])
def test_an_endpoint_that_is_no_plain_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL_S3") as caught:
        open_store("s3://bucket", access=S3Access(endpoint_url=endpoint))
    assert "planted-secret" not in "".join(traceback.format_exception(caught.value))


def test_a_bad_local_folder_is_not_blamed_on_the_server(s3_store: Store, tmp_path: Path) -> None:
    s3_store.write("a", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"to .*/file/below: File exists: .*/file; a file"):
        s3_store.download("a", tmp_path / "file" / "below")
