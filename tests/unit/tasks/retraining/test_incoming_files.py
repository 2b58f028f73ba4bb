"""New files are found once, and bad ones are moved away with their reason."""

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.row_files import read_rows
from pvar.digest import prompt_id
from pvar.errors import NotFoundError
from pvar.incoming_rows import SeenRows
from pvar.ports import Store
from pvar.records import BadRow, Message, Row
from pvar.retrain_decision import FileVersion
from tasks.retraining.incoming_files import (
    Look,
    fetch,
    forget_inspected,
    keep_inspected,
    look,
)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


def put(store: Store, key: str, *prompts: str) -> None:
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    store.write(key, "\n".join(lines).encode())


def looked(store: Store, scratch: Path, known: set[FileVersion] | None = None) -> Look:
    return look(store, "incoming", read_rows, known=known or set(), scratch=scratch)


def test_new_files_are_found_in_key_order_with_their_rows(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/b.jsonl", "Hi", "Ho")
    put(store, "incoming/2026/a.jsonl", "Hey")
    put(store, "elsewhere/c.jsonl", "No")
    good = looked(store, tmp_path).good
    assert [each.file.key for each in good] == ["incoming/2026/a.jsonl", "incoming/b.jsonl"]
    assert [each.file.row_counts.rows_out for each in good] == [1, 2]
    assert good[1].path is not None
    assert good[1].path.read_bytes() == store.read("incoming/b.jsonl")


def test_a_known_file_is_not_looked_at_until_it_changes(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "Hi")
    (first,) = looked(store, tmp_path / "1").good
    known = {first.file.version}
    assert looked(store, tmp_path / "2", known).good == ()
    put(store, "incoming/a.jsonl", "Hi", "and another")
    (second,) = looked(store, tmp_path / "3", known).good
    assert second.file.sha256 != first.file.sha256


def test_other_content_of_the_same_size_and_time_is_new(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "Hi")
    (first,) = looked(store, tmp_path / "1").good
    put(store, "incoming/a.jsonl", "Ho")
    (info,) = store.list("incoming/")
    assert info.num_bytes == first.file.num_bytes
    # As after `rsync -t`, or within the second that is all that S3's clock tells.
    known = {first.file.version._replace(modified=info.modified)}
    (second,) = looked(store, tmp_path / "2", known).good
    assert second.file.sha256 != first.file.sha256
    assert looked(store, tmp_path / "3", known | {second.file.version}).good == ()


def test_a_copy_that_keeps_the_time_has_another_version(file_store: Store, tmp_path: Path) -> None:
    put(file_store, "incoming/a.jsonl", "Hi")
    path = tmp_path / "store" / "incoming" / "a.jsonl"
    (before,) = file_store.list("incoming/")
    times = path.stat()
    replacement = path.with_name(".new")
    replacement.write_bytes(path.read_bytes().replace(b"Hi", b"Ho"))
    os.utime(replacement, ns=(times.st_atime_ns, times.st_mtime_ns))
    replacement.replace(path)
    (after,) = file_store.list("incoming/")
    assert after[:3] == before[:3]
    assert after.version != before.version


def test_a_record_without_the_store_s_version_still_names_its_file(
    store: Store, tmp_path: Path
) -> None:
    put(store, "incoming/a.jsonl", "Hi")
    (found,) = looked(store, tmp_path / "1").good
    fields = found.file.model_dump(exclude={"store_version"})  # as pvar wrote it before
    known = {type(found.file).model_validate(fields).version}
    assert looked(store, tmp_path / "2", known).good == ()


class Counted:
    """A store that counts what it is asked."""

    def __init__(self, store: Store) -> None:
        self.calls: Counter[str] = Counter()
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., object]:
        self.calls[name] += 1
        method: Callable[..., object] = getattr(self._store, name)
        return method


def test_files_that_wait_are_read_once_and_then_only_listed(
    file_store: Store, tmp_path: Path
) -> None:
    num_files = 300
    for number in range(num_files):
        path = tmp_path / "store" / "incoming" / f"{number}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"prompt": f"prompt {number}"}))
    store: Any = Counted(file_store)
    first = looked(store, tmp_path / "1").good
    keep_inspected(store, [each.file for each in first])
    assert store.calls["download"] == num_files
    store.calls.clear()
    put(file_store, "incoming/new.jsonl", "new")
    second = looked(store, tmp_path / "2").good
    assert store.calls == {"list": 2, "read": 1, "download": 1}  # whatever the number of files
    assert len(second) == num_files + 1
    fetched = fetch(file_store, second, tmp_path / "3")
    assert [each.file for each in fetched] == [each.file for each in second]
    rows = [row for each in fetched if each.path for row in read_rows(each.path)]
    assert len(rows) == num_files + 1


def test_a_file_that_changes_after_it_was_inspected_is_left(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "Hi")
    put(store, "incoming/b.jsonl", "Hey")
    keep_inspected(store, [each.file for each in looked(store, tmp_path / "1").good])
    found = looked(store, tmp_path / "2").good
    put(store, "incoming/a.jsonl", "Ho")  # after the listing
    store.delete("incoming/b.jsonl")
    put(store, "incoming/c.jsonl", "not listed")
    assert fetch(store, found, tmp_path / "3") == []
    again = looked(store, tmp_path / "4").good
    assert [each.file.key for each in again] == ["incoming/a.jsonl", "incoming/c.jsonl"]
    assert again[0].file.sha256 != found[0].file.sha256


def test_a_file_that_changes_while_it_is_inspected_is_left(store: Store, tmp_path: Path) -> None:
    put(store, "incoming/a.jsonl", "Hi")

    def read_slowly(path: Path) -> Iterator[Row | BadRow]:
        put(store, "incoming/a.jsonl", "Ho")  # by its owner, in the meantime
        return read_rows(path)

    found = look(store, "incoming", read_slowly, known=set(), scratch=tmp_path / "1")
    assert (found.good, found.quarantined) == ((), ())
    (later,) = looked(store, tmp_path / "2").good
    assert later.path is not None
    assert b"Ho" in later.path.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "my prefs (final).jsonl",
        "Präferenzen-偏好-😀.jsonl",
        'it\'s "quoted" & 100% + #1?.jsonl',
        "x" * 249 + ".jsonl",
        "偏" * 83 + ".jsonl",
    ],
    ids=["spaces", "unicode", "quotes", "long", "long unicode"],
)
def test_files_of_any_name_are_read_and_quarantined(
    store: Store, tmp_path: Path, name: str
) -> None:
    put(store, f"incoming/{name}", "Hi")
    (good,) = looked(store, tmp_path / "1").good
    assert good.file.key == f"incoming/{name}"
    store.write(f"incoming/{name}", b"broken")
    (bad,) = looked(store, tmp_path / "2").quarantined
    assert bad.key == f"incoming/{name}"
    copy, beside = [info.key for info in store.list("quarantine/")]
    assert store.read(copy) == b"broken"
    assert json.loads(store.read(beside))["key"] == f"incoming/{name}"


@pytest.mark.parametrize("name", ["back\\slash.jsonl", "line\nbreak.jsonl"])
def test_a_name_that_cannot_be_a_key_does_not_keep_other_files_back(
    file_store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    put(file_store, "incoming/a.jsonl", "Hi")
    (tmp_path / "store" / "incoming" / name).write_text('{"prompt": "Hi"}')
    assert [each.file.key for each in looked(file_store, tmp_path).good] == ["incoming/a.jsonl"]
    assert "rename it" in caplog.text


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


def test_prompts_that_are_known_do_not_count_as_new(store: Store, tmp_path: Path) -> None:
    asked = []

    def seen() -> SeenRows:
        asked.append(1)
        return SeenRows(prompts={prompt_id([Message("user", "Hi")])})

    put(store, "incoming/a.jsonl", "Hi", "Ho", "Hi")
    put(store, "incoming/b.jsonl", "Hey")
    found = look(store, "incoming", read_rows, known=(), scratch=tmp_path / "1", seen=seen).good
    assert [(each.file.num_new, each.file.num_not_new) for each in found] == [(1, 2), (1, 0)]
    keep_inspected(store, (each.file for each in found))
    again = look(store, "incoming", read_rows, known=(), scratch=tmp_path / "2", seen=seen)
    assert [each.file for each in again.good] == [each.file for each in found]
    assert len(asked) == 1  # all earlier data are read for it, so only if a file is inspected
    forget_inspected(store)
    look(store, "incoming", read_rows, known=(), scratch=tmp_path / "3", seen=seen)
    assert len(asked) == 2
