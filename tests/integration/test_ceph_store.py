"""The S3 store on a real server; what all stores share is in the contract suite."""

import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.settings import S3Access
from infra.store import open_store
from pvar.errors import LeaseError, StoreError
from tasks.engine.lease import LeaseWatch, hold, try_acquire
from tests.lease_time import ELSEWHERE, stepped_time
from tests.services.s3 import S3Server

pytestmark = pytest.mark.service


def test_put_if_absent_is_honoured(ceph_s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert ceph_s3.new_store().create("a", b"x")
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"secret_access_key": SecretStr("planted-secret")}, "SignatureDoesNotMatch"),
        ({"access_key_id": "nobody"}, "InvalidAccessKeyId"),
    ],
)
def test_bad_credentials_are_told_without_showing_any(
    ceph_s3: S3Server, change: dict[str, str | SecretStr], complaint: str, tmp_path: Path
) -> None:
    access = S3Access(**{**dict(ceph_s3.access()), **change})
    store = open_store(f"s3://{ceph_s3.new_bucket()}", access=access)
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for operation in (
        lambda: store.read("a"),
        lambda: store.write("a", b""),
        lambda: store.create("a", b""),
        lambda: store.upload(path, "a"),
        lambda: store.download("a", path),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreError, match=rf"not accept the credentials \({complaint}\)") as e:
            operation()
        text = "".join(traceback.format_exception(e.value))
        assert "planted-secret" not in text
        assert ceph_s3.secret_key not in text


def test_a_missing_bucket_is_named(ceph_s3: S3Server) -> None:
    with pytest.raises(StoreError, match=f"{ceph_s3.endpoint} has no bucket 'not-there'"):
        open_store("s3://not-there", access=ceph_s3.access()).read("a")


def test_a_bucket_of_somebody_else_is_forbidden(ceph_s3: S3Server) -> None:
    bucket = ceph_s3.new_bucket()
    nobody_may = '{"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", '
    nobody_may += f'"Resource": "arn:aws:s3:::{bucket}/*"}}]}}'
    ceph_s3.client().put_bucket_policy(Bucket=bucket, Policy=nobody_may)
    with pytest.raises(StoreError, match=r"cannot write 'a': .* denies access; check AWS_ACCESS"):
        open_store(f"s3://{bucket}", access=ceph_s3.access()).write("a", b"")


# Copies from a pipe that gives some parts and then no more.
_UPLOAD = """
import sys
from pathlib import Path
from infra.store import open_store
open_store(sys.argv[1]).upload(Path(sys.argv[2]), "model")
"""


def test_an_upload_killed_half_way_is_not_seen(ceph_s3: S3Server, tmp_path: Path) -> None:
    uri, pipe = f"s3://{ceph_s3.new_bucket()}", tmp_path / "pipe"
    os.mkfifo(pipe)
    environment = os.environ | ceph_s3.environment()
    writer = subprocess.Popen([sys.executable, "-c", _UPLOAD, uri, str(pipe)], env=environment)
    try:
        with pipe.open("wb") as source:
            source.write(bytes(40 << 20))  # two and a half parts
            source.flush()
            writer.kill()
    finally:
        writer.kill()
        writer.wait()
    store = open_store(uri, access=ceph_s3.access())
    assert list(store.list("")) == []


def test_a_lease_on_s3_has_one_holder_and_moves_on(
    ceph_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock, watch = ceph_s3.new_store(), stepped_time(monkeypatch), LeaseWatch()
    with hold(store, "train/ab12/lease") as lease:
        assert try_acquire(store, "train/ab12/lease") is None
        lease.renew()
        lease.check()
        for _ in range(4):
            watch.look(store, "train/ab12/lease")
            clock.seconds += 15
        taken = try_acquire(store, "train/ab12/lease", watch=watch, holder=ELSEWHERE)
        assert taken is not None
        assert taken.epoch == 2
        with pytest.raises(LeaseError, match="another process took over"):
            lease.check()
    taken.check()
