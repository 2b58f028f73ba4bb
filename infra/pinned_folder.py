"""Folders of a user's files: pinned by a digest of their content, used as verified copies.

Files whose name, or whose folder's name, begins with a dot and compiled Python files are left out.
"""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pvar.errors import InputError
from pvar.references import Pinned, is_pinned

MAX_BYTES = 10**9
"""More is probably the wrong folder, such as a home folder."""


def pin_folder(reference: str) -> str:
    """Append the digest of the folder's files; InputError if it cannot be read or is empty."""
    if is_pinned(reference):
        return reference
    folder = refuse_unusable_folder(reference)
    return f"{folder}#{_digest(folder)}"


def refuse_unusable_folder(reference: str) -> Path:
    """The folder; InputError if it is not there, has no files or is too large to be copied."""
    folder = Path(reference).expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a local folder of files")
    names = list(_names(folder))
    num_bytes = sum((folder / name).stat().st_size for name in names)
    if not names:
        raise InputError(f"{folder} has no files; give a folder with files")
    if num_bytes > MAX_BYTES:
        raise InputError(
            f"the files of {folder} have {num_bytes / 1e9:.1f} GB, and at most "
            f"{MAX_BYTES / 1e9:.0f} GB are copied for a run; give a folder with fewer files"
        )
    return folder


def copy_pinned_folder(reference: str, into: Path) -> Path:
    """A copy of a pinned folder below `into`, with the content that was pinned.

    Raises InputError if the content changed since then.
    """
    location, digest = Pinned.parse(reference)
    source, copy = Path(location), into / digest
    if copy.is_dir() and _digest(copy) == digest:
        return copy
    if not source.is_dir():
        raise InputError(
            f"{source}: no such folder, but it was there when this run was pinned; restore it"
        )
    shutil.rmtree(copy, ignore_errors=True)
    for name in _names(source):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copy / name)
    if (found := _digest(copy)) != digest:
        shutil.rmtree(copy, ignore_errors=True)
        raise InputError(
            f"{source} changed: its digest was {digest} when this run was pinned and is {found} "
            "now; restore the earlier files, or start a new run to use the current ones"
        )
    return copy


def _names(folder: Path) -> Iterator[str]:
    """Relative names of the files, sorted."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for name in sorted(name.as_posix() for name in names):
        parts = name.split("/")
        if "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            yield name


def _digest(folder: Path) -> str:
    """SHA-256 over the names and contents of the files."""
    whole = hashlib.sha256()
    for name in _names(folder):
        with (folder / name).open("rb") as file:
            whole.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return f"sha256-{whole.hexdigest()[:24]}"
