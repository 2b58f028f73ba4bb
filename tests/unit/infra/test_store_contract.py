"""What every store promises, held against a folder, a quick S3 server and a real one."""

import hashlib
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from infra.settings import S3Access
from infra.store import open_store
from pvar.errors import NotFoundError, StoreError
from pvar.ports import Store
from tests.services.s3 import S3Server


class Place(NamedTuple):
    """An empty store, and how another process opens it."""

    uri: str
    access: S3Access | None

    def open(self) -> Store:
        return open_store(self.uri, access=self.access)


@pytest.fixture(params=["file", "moto", pytest.param("ceph", marks=pytest.mark.service)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        return Place(str(tmp_path / "store"), None)
    server: S3Server = request.getfixturevalue(f"{request.param}_s3")
    return Place(f"s3://{server.new_bucket()}/runs/artifacts", server.access())


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def keys(store: Store, prefix: str = "", depth: int | None = None) -> list[str]:
    return [info.key for info in store.list(prefix, depth)]


def test_what_is_written_is_read(store: Store) -> None:
    for data in (b"", b"one", bytes(range(256)) * 5000):
        store.write("a/b/c.bin", data)
        assert store.read("a/b/c.bin") == data


def test_a_new_store_is_empty(store: Store) -> None:
    assert keys(store) == []


def test_names_in_any_script_come_back(store: Store) -> None:
    name = "Läufe/eins & zwei+drei=4%20?#.json"
    store.write(name, b"x")
    assert store.read(name) == b"x"
    assert keys(store, "Läufe/") == [name]


@pytest.mark.parametrize("key", ["nothing", "folder", "folder/file/below"])
def test_a_missing_object_is_not_found(store: Store, key: str, tmp_path: Path) -> None:
    store.write("folder/file", b"x")
    with pytest.raises(NotFoundError, match=f"no object '{key}'"):
        store.read(key)
    with pytest.raises(NotFoundError, match=f"no object '{key}'"):
        store.download(key, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_create_never_replaces(store: Store) -> None:
    assert store.create("lease.json", b"first")
    assert not store.create("lease.json", b"second")
    assert store.read("lease.json") == b"first"


def test_create_does_not_replace_what_write_put(store: Store) -> None:
    store.write("manifest.json", b"written")
    assert not store.create("manifest.json", b"created")
    assert store.read("manifest.json") == b"written"


def test_a_deleted_object_can_be_created_again(store: Store) -> None:
    store.create("a", b"1")
    store.delete("a")
    assert keys(store) == []
    assert store.create("a", b"2")


@pytest.mark.parametrize("key", ["nothing", "folder", "folder/file/below"])
def test_deleting_what_is_not_there_changes_nothing(store: Store, key: str) -> None:
    store.write("folder/file", b"x")
    store.delete(key)
    assert keys(store) == ["folder/file"]


def test_listing_is_in_key_order_and_by_beginning(store: Store) -> None:
    # By UTF-8 bytes: '-' (2d) < '.' (2e) < '/' (2f) < '0' (30) < 'B' < 'b' < 'é' (c3a9).
    # A walk folder by folder would put a-b after a/….
    ordered = ["a-b", "a.b", "a/B", "a/b/1", "a/b0", "a0", "b", "é"]
    for key in Random(7).sample(ordered, len(ordered)):
        store.write(key, key.encode())
    assert keys(store) == ordered
    assert keys(store, "a") == ordered[:6]
    assert keys(store, "a/") == ["a/B", "a/b/1", "a/b0"]
    assert keys(store, "a/b") == ["a/b/1", "a/b0"]
    assert keys(store, "a/b/") == ["a/b/1"]
    assert keys(store, "nothing/here/") == []
    assert keys(store, "b/") == []  # an object, not a folder


def test_listing_goes_as_deep_as_asked(store: Store) -> None:
    ordered = ["a/b/1", "a/b/c/2", "a/b/c/d/3", "a/b0", "a/c"]
    for key in ordered:
        store.write(key, b"")
    assert keys(store, "a/", 0) == ["a/b0", "a/c"]
    assert keys(store, "a/", 1) == ["a/b/1", "a/b0", "a/c"]
    assert keys(store, "a/b", 0) == ["a/b0"]
    assert keys(store, "a/b/", 1) == ["a/b/1", "a/b/c/2"]
    assert keys(store, "a/b/c", 1) == ["a/b/c/2"]
    assert keys(store, "", 0) == []
    assert keys(store, "a/", 9) == keys(store, "a/") == ordered


@pytest.mark.slow
def test_listing_goes_on_after_a_thousand_objects(file_store: Store, s3_store: Store) -> None:
    # S3 answers in pages of 1000. Not over the real server, where 1001 puts take a while.
    wanted = [f"shards/{number:06d}" for number in range(1001)]
    for store in (file_store, s3_store):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key, store=store: store.write(key, b""), wanted))
        assert keys(store, "shards/") == wanted


def test_listing_tells_sizes_and_times(store: Store) -> None:
    store.write("a", b"12345")
    (info,) = store.list("")
    assert info.num_bytes == 5
    assert info.modified.tzinfo is UTC
    assert abs((datetime.now(UTC) - info.modified).total_seconds()) < 3600


def test_other_content_is_another_version(store: Store) -> None:
    store.write("a", b"one")
    (first,) = store.list("a")
    assert next(iter(store.list("a"))).version == first.version != ""
    store.write("a", b"two")
    assert next(iter(store.list("a"))).version != first.version


def test_a_large_file_comes_back_whole(store: Store, tmp_path: Path) -> None:
    # 40 MiB: three parts of 16 MiB on S3, the last one short.
    data = Random(1).randbytes((40 << 20) + 1)
    source, copy = tmp_path / "model.safetensors", tmp_path / "new" / "copy.safetensors"
    source.write_bytes(data)
    store.upload(source, "model/model.safetensors")
    store.download("model/model.safetensors", copy)
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert keys(store) == ["model/model.safetensors"]


def test_an_upload_replaces_and_a_download_too(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old and long", b"new", b""):
        path.write_bytes(content)
        store.upload(path, "file")
        path.write_bytes(b"something else")
        store.download("file", path)
        assert path.read_bytes() == content


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../outside", "a/../../outside", "a//b", "a\n"])
def test_no_key_leads_out_of_the_store(store: Store, key: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for operation in (
        lambda: store.read(key),
        lambda: store.write(key, b"x"),
        lambda: store.create(key, b"x"),
        lambda: store.upload(path, key),
        lambda: store.download(key, path),
        lambda: store.delete(key),
    ):
        with pytest.raises(StoreError, match="store key"):
            operation()
    assert keys(store) == []


def test_a_reader_never_sees_half_an_object(store: Store) -> None:
    # Each version is 3 MB of one letter: two letters in one reading would be a mixture.
    versions = [letter * 3_000_000 for letter in (b"a", b"b")]
    store.write("object", versions[0])
    is_done = threading.Event()

    def rewrite() -> None:
        for number in range(10):
            store.write("object", versions[number % 2])
        is_done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(rewrite)
        num_readings = 0
        while not is_done.is_set() or num_readings == 0:
            assert store.read("object") in versions
            num_readings += 1
            assert num_readings < 10_000
        writing.result()


def test_one_of_sixteen_threads_creates(store: Store) -> None:
    barrier = threading.Barrier(16)

    def race(number: int) -> bool:
        barrier.wait()
        return store.create("lease.json", str(number).encode())

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    assert sum(won) == 1
    assert store.read("lease.json") == str(won.index(True)).encode()


def _race_in_process(place: Place, number: int, barrier: threading.Barrier) -> bool:
    store = place.open()
    store.create("warm-up", b"")  # connections and the probe, before the start
    barrier.wait()
    return store.create("lease.json", str(number).encode())


@pytest.mark.slow
def test_one_of_sixteen_processes_creates(place: Place) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["infra.store.s3_store"])
    with context.Manager() as manager, context.Pool(16) as pool:
        barrier = manager.Barrier(16)
        won = pool.starmap(_race_in_process, [(place, number, barrier) for number in range(16)])
    assert sum(won) == 1
    assert place.open().read("lease.json") == str(won.index(True)).encode()


def test_the_address_is_the_one_that_opens_it_again(place: Place) -> None:
    first = place.open()
    first.write("a", b"x")
    assert open_store(first.uri, access=place.access).read("a") == b"x"
