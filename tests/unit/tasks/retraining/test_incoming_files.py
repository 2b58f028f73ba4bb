"""New files are found once, and bad ones are moved away with their reason."""

import gzip
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from infra.row_files import read_rows
from pvar.errors import NotFoundError
from pvar.ports import Store
from pvar.records import BadRow, Row
from tasks.retraining.incoming_files import Look, look


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


def put(store: Store, key: str, *prompts: str) -> None:
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    store.write(key, "\n".join(lines).encode())


def looked(
    store: Store, scratch: Path, known: set[tuple[str, int, datetime]] | None = None
) -> Look:
    return look(store, "incoming", read_rows, known=known or set(), scratch=scratch)


def test_new_files_are_found_in_key_order_with_their_rows(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/b.jsonl", "Hi", "Ho")
    put(store, "incoming/2026/a.jsonl", "Hey")
    put(store, "elsewhere/c.jsonl", "No")
    good = looked(store, tmp_path).good
    assert [each.file.key for each in good] == ["incoming/2026/a.jsonl", "incoming/b.jsonl"]
    assert [each.file.row_counts.rows_out for each in good] == [1, 2]
    assert good[1].path.read_bytes() == store.read("incoming/b.jsonl")


def test_a_known_file_is_not_looked_at_until_it_changes(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "Hi")
    (first,) = looked(store, tmp_path / "1").good
    known = {first.file.version}
    assert looked(store, tmp_path / "2", known).good == ()
    put(store, "incoming/a.jsonl", "Hi", "and another")
    (second,) = looked(store, tmp_path / "3", known).good
    assert second.file.sha256 != first.file.sha256


def test_a_neighbour_whose_name_only_begins_like_the_prefix_is_not_incoming(
    store: Store, tmp_path: Path
) -> None:
    put(store, "incoming-old/a.jsonl", "Hi")
    assert looked(store, tmp_path).good == ()


def test_uploads_in_progress_hide_behind_a_dot(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/.a.jsonl.part", "Hi")
    found = looked(store, tmp_path)
    assert (found.good, found.quarantined) == ((), ())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"prompt\nHi\n", "unknown file type"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.jsonl", b"[1, 2", "JSON array"),
        ("a.parquet", b"PAR1 but no more", "not a valid Parquet file"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "Hi"}' * 9, mtime=0)[:-9], "damaged"),
        ("a.jsonl", b'{"prompt": "Hi"}\n{"prompt": \xff}', "1 of its 2 rows are bad"),
    ],
)
def test_a_bad_file_is_moved_to_quarantine_with_its_reason(
    file_store: Store, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    file_store.write(f"incoming/{name}", content)
    found = looked(file_store, tmp_path)
    assert found.good == ()
    (bad,) = found.quarantined
    assert bad.key == f"incoming/{name}"
    assert reason in bad.reason
    assert str(tmp_path) not in bad.reason  # the user knows the object, not our copy of it
    with pytest.raises(NotFoundError):
        file_store.read(f"incoming/{name}")
    copy, beside = [info.key for info in file_store.list("quarantine/")]
    assert file_store.read(copy) == content
    assert beside == f"{copy}.reason.json"
    assert json.loads(file_store.read(beside))["reason"] == bad.reason


def test_one_bad_file_does_not_keep_the_good_ones_back(store: Store, tmp_path: Path) -> None:
    store.write("incoming/a.jsonl", b"broken")
    put(store, "incoming/b.jsonl", "Hi")
    found = looked(store, tmp_path)
    assert [each.file.key for each in found.good] == ["incoming/b.jsonl"]
    assert [each.key for each in found.quarantined] == ["incoming/a.jsonl"]


def test_a_file_that_is_mended_while_it_is_judged_is_not_deleted(
    file_store: Store, tmp_path: Path
) -> None:
    file_store.write("incoming/a.jsonl", b"broken")

    def read_slowly(path: Path) -> Iterator[Row | BadRow]:
        put(file_store, "incoming/a.jsonl", "mended")  # by its owner, in the meantime
        return read_rows(path)

    look(file_store, "incoming", read_slowly, known=set(), scratch=tmp_path / "1")
    assert b"mended" in file_store.read("incoming/a.jsonl")
    assert len(looked(file_store, tmp_path / "2").good) == 1
