"""A folder is used as it was pinned, and what was compiled or hidden in it does not count."""

from pathlib import Path

import pytest

from infra.pinned_folder import copy_pinned_folder, pin_folder
from pvar.errors import InputError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    def digest(name: str, **files: str) -> str:
        return pin_folder(str(write(tmp_path / name, **files))).rpartition("#")[2]

    first = digest("first", a="1", sub__b="2")
    assert first.startswith("sha256-")
    assert digest("moved", a="1", sub__b="2") == first
    assert digest("content", a="1", sub__b="3") != first
    assert digest("name", a="1", sub__c="2") != first
    assert digest("place", a="1", b="2") != first


def test_compiled_and_hidden_files_do_not_count(tmp_path: Path) -> None:
    folder = write(tmp_path / "tasks", a="1")
    pinned = pin_folder(str(folder))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    assert pin_folder(str(folder)) == pinned
    assert [path.name for path in copy_pinned_folder(pinned, tmp_path / "copies").iterdir()] == [
        "a"
    ]


def test_a_pinned_folder_is_copied_and_then_independent(tmp_path: Path) -> None:
    folder = write(tmp_path / "tasks", a="1", sub__b="2")
    pinned = pin_folder(str(folder))
    assert pin_folder(pinned) == pinned
    copy = copy_pinned_folder(pinned, tmp_path / "copies")
    write(folder, a="changed")
    assert (copy / "a").read_text() == "1"
    assert copy_pinned_folder(pinned, tmp_path / "copies") == copy
    assert (copy / "sub" / "b").read_text() == "2"


def test_a_folder_that_changed_since_it_was_pinned_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "tasks", a="1")
    pinned = pin_folder(str(folder))
    write(folder, a="2")
    with pytest.raises(InputError, match=r"changed: its digest was sha256-.* and is sha256-"):
        copy_pinned_folder(pinned, tmp_path / "copies")
    (folder / "a").unlink()
    folder.rmdir()
    with pytest.raises(InputError, match="no such folder, but it was there"):
        copy_pinned_folder(pinned, tmp_path / "copies")


def test_what_cannot_be_pinned_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        pin_folder(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no files"):
        pin_folder(str(tmp_path / "empty"))
