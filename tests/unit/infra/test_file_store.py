"""Full and read-only disks, killed writers: nothing half-written, and the user is told."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.store import open_store
from infra.store.file_store import STALE_SECONDS
from pvar.errors import NotFoundError, StoreError
from pvar.ports import Store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"only root may mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_full_disk_is_named_and_nothing_is_lost(small_disk: Path, tmp_path: Path) -> None:
    store = open_store(str(small_disk))
    store.write("manifest.json", b"complete")
    large = tmp_path / "large"
    large.write_bytes(bytes(2 << 20))
    for operation in (
        lambda: store.write("manifest.json", bytes(2 << 20)),
        lambda: store.create("shard", bytes(2 << 20)),
        lambda: store.upload(large, "shard"),
    ):
        with pytest.raises(
            StoreError, match=r"No space left on device \([01] of 1 MiB are free at"
        ):
            operation()
    assert files(small_disk) == ["manifest.json"]
    assert store.read("manifest.json") == b"complete"
    store.write("shard", b"there is room again")


@pytest.mark.parametrize("kind", ["file_store", "s3_store"])
def test_a_full_disk_at_a_download_leaves_no_part_of_it(
    kind: str, small_disk: Path, request: pytest.FixtureRequest
) -> None:
    store: Store = request.getfixturevalue(kind)
    store.write("large", bytes(2 << 20))
    with pytest.raises(StoreError, match=r"to .*/small/copy: No space left .* of 1 MiB"):
        store.download("large", small_disk / "copy")
    assert files(small_disk) == []


def test_a_read_only_store_is_read_and_says_so_to_writers(small_disk: Path) -> None:
    open_store(str(small_disk)).write("a", b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    store = open_store(str(small_disk))
    assert store.read("a") == b"x"
    assert [info.key for info in store.list("")] == ["a"]
    for operation in (
        lambda: store.write("a", b"y"),
        lambda: store.create("b", b"y"),
        lambda: store.delete("a"),
    ):
        with pytest.raises(StoreError, match=r"Read-only file system; make .*/small writable"):
            operation()


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store(str(tmp_path / "file" / "store"))
    with pytest.raises(StoreError, match=r"Not a directory: .*; a file stands where"):
        store.write("a", b"x")
    with pytest.raises(NotFoundError):
        store.read("a")


def test_an_object_is_no_folder_for_others(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("a", b"x")
    with pytest.raises(StoreError, match=r"cannot write 'a/b': .*a file stands where"):
        store.write("a/b", b"x")


# Copies from a pipe that gives some bytes and then no more.
_UPLOAD = """
import sys
from pathlib import Path
from infra.store import open_store
open_store(sys.argv[1]).upload(Path(sys.argv[2]), "shard")
"""


def test_a_writer_killed_half_way_leaves_nothing_to_be_seen(tmp_path: Path) -> None:
    root, pipe = tmp_path / "store", tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen([sys.executable, "-c", _UPLOAD, str(root), str(pipe)])
    try:
        with pipe.open("wb") as source:
            source.write(bytes(2 << 20))
            source.flush()
            (partial,) = (root / ".tmp").iterdir()
            _make_old(partial)
            # The writer lives, however old its file looks: opening must not take it away.
            open_store(str(root))
            assert partial.exists()
            writer.kill()
            writer.wait()
    finally:
        writer.kill()
        writer.wait()
    _make_old(partial)  # what was left in the pipe may have been written meanwhile
    store = open_store(str(root))
    assert not partial.exists()
    assert list(store.list("")) == []
    with pytest.raises(NotFoundError):
        store.read("shard")


def test_young_temporary_files_are_left_alone(tmp_path: Path) -> None:
    # A writer on its way from opening its file to locking it.
    partial = tmp_path / ".tmp" / "young"
    partial.parent.mkdir()
    partial.write_bytes(b"")
    open_store(str(tmp_path))
    assert partial.exists()
    _make_old(partial)
    with partial.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        open_store(str(tmp_path))
        assert partial.exists()
    open_store(str(tmp_path))
    assert not partial.exists()


def _make_old(path: Path) -> None:
    past = time.time() - STALE_SECONDS - 60
    os.utime(path, (past, past))


def test_a_clock_ahead_does_not_make_partial_files_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a writer on another machine, whose lock is not seen here: some file systems share none.
    partial = tmp_path / ".tmp" / "abc"
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    ahead = time.time() + 3 * STALE_SECONDS
    monkeypatch.setattr(time, "time", lambda: ahead)
    open_store(str(tmp_path))
    assert partial.exists()
