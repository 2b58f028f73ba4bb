"""Data references: resolve them to a digest (pinning), and read their rows.

bundled:sentiment          this project's own prompts (pvar/data/README.md)
bundled:mixed              half of them beside prompts on which a lexicon sees little difference
bundled:annotated          those of bundled:mixed, each with two answers and a label
/file.jsonl, ./f.parquet   JSON lines (also .gz), a JSON array, Parquet or CSV
s3://bucket/key.jsonl      such a file in S3
hub:org/name[:split]       a Hugging Face dataset (its split `train` unless named)
hub:org/name:config:split  of a dataset with configurations; each also with @revision
"""

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from infra.csv_rows import CSV, read_csv_rows
from infra.row_files import ROW_FILES, read_rows, refuse_unreadable
from infra.store import open_store
from pvar.errors import InputError, NotFoundError
from pvar.records import BadRow, Row
from pvar.references import Pinned, is_pinned

FILES = (CSV,)
"""Types of files that are read as a whole."""
SOURCES = (*ROW_FILES, CSV)
"""Types of files of rows."""

BUNDLED = {
    "sentiment": "data/sentiment_prompts.jsonl",
    "mixed": "data/mixed_prompts.jsonl",
    "annotated": "data/annotated_prompts.jsonl",
}


def is_local(reference: str) -> bool:
    """Whether the data are on this machine, and not in S3 or on the Hub."""
    return not reference.startswith(("s3:", "hub:"))


def refuse_unreadable_rows(reference: str) -> None:
    """Raise InputError unless a local reference is a readable file of rows."""
    refuse_unreadable(_local_file(reference, Path()), SOURCES)


def refuse_unreadable_file(reference: str) -> None:
    """Raise InputError unless a reference that is not in S3 is a readable local file."""
    _refuse_data_set(reference)
    refuse_unreadable(_local_file(reference, Path()), FILES)


def pin_source(reference: str, cache: Path) -> str:
    """Append the SHA-256 of the content; InputError if it cannot be read."""
    is_hub = reference.startswith("hub:")
    if is_pinned(reference):
        return reference
    if is_hub:
        return _pinned_on_hub(reference, _hub_commit(reference))
    path = _local_file(reference, cache)
    refuse_unreadable(path, SOURCES)
    return _with_digest(reference, path)


def pin_file(reference: str, cache: Path) -> str:
    """Append the SHA-256 of a file whose bytes are used; InputError if it cannot be read."""
    if is_pinned(reference):
        return reference
    _refuse_data_set(reference)
    path = _local_file(reference, cache)
    refuse_unreadable(path, FILES)
    return _with_digest(reference, path)


def _with_digest(reference: str, path: Path) -> str:
    location = reference if reference.startswith(("bundled:", "s3:")) else str(path)
    return f"{location}#{_file_digest(path)}"


def source_rows(reference: str, cache: Path) -> Iterator[Row | BadRow]:
    """Rows of a pinned reference; InputError if its content changed since it was pinned."""
    location, digest = Pinned.parse(reference)
    if location.startswith("hub:"):
        return _hub_rows(location)
    return _unchanged_rows(location, digest, _local_file(location, cache))


def source_file(reference: str, cache: Path) -> Path:
    """Local copy of a pinned file; InputError if it changed since it was pinned."""
    location, digest = Pinned.parse(reference)
    path = _local_file(location, cache)
    _refuse_changed(location, digest, path, FILES)
    return path


def _refuse_data_set(reference: str) -> None:
    if reference.startswith("hub:"):
        raise InputError(
            f"{reference} is a data set of rows, but a file is needed here; download the file and "
            "give its path or s3:// address"
        )


def _unchanged_rows(location: str, pinned: str, path: Path) -> Iterator[Row | BadRow]:
    """The rows; the content is verified before the first and after the last one."""
    _refuse_changed(location, pinned, path, SOURCES)
    yield from read_csv_rows(path) if path.name.endswith(CSV) else read_rows(path)
    _refuse_changed(location, pinned, path, SOURCES)


def _refuse_changed(location: str, pinned: str, path: Path, kinds: tuple[str, ...]) -> None:
    refuse_unreadable(path, kinds)
    found = _file_digest(path)
    if found != pinned:
        raise InputError(
            f"{location} changed: its digest was {pinned} when this run was pinned and is {found} "
            "now; restore the earlier file, or start a new run to use the current one"
        )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256-{hashlib.file_digest(file, 'sha256').hexdigest()[:24]}"


def _local_file(location: str, cache: Path) -> Path:
    scheme, separator, rest = location.partition(":")
    if scheme == "bundled" and separator:
        if rest not in BUNDLED:
            raise InputError(f"unknown bundled data {rest!r}; available: {', '.join(BUNDLED)}")
        return Path(str(files("pvar") / BUNDLED[rest]))
    if scheme == "s3" and separator:
        return _download(location, cache)
    if scheme == "file" and separator:
        return Path(url2pathname(urlsplit(location).path))
    return Path(location).expanduser().absolute()


def _download(location: str, cache: Path) -> Path:
    folder, _, name = location.rpartition("/")
    if not name or folder == "s3:/":
        raise InputError(f"{location} names no object; write s3://bucket/key.jsonl")
    target = cache / hashlib.sha256(location.encode()).hexdigest()[:16] / name
    try:
        open_store(folder).download(name, target)
    except NotFoundError as error:
        raise InputError(f"{location}: no such object; check bucket and key") from error
    return target


class _HubName(NamedTuple):
    repository: str
    config: str | None
    split: str
    revision: str | None


def _hub_name(reference: str) -> _HubName:
    """The parts of `hub:org/name[:split][@revision]` and `hub:org/name:config:split[@revision]`."""
    name, _, revision = reference.removeprefix("hub:").partition("@")
    match name.split(":"):
        case [repository]:
            config, split = None, "train"
        case [repository, split]:
            config = None
        case [repository, config, split] if config:
            pass
        case _:
            raise InputError(
                f"{reference}: write hub:org/name, hub:org/name:split or "
                "hub:org/name:configuration:split, each also with @revision"
            )
    return _HubName(repository, config, split or "train", revision or None)


def _pinned_on_hub(reference: str, commit: str) -> str:
    """The reference with the commit that its revision, or else the main branch, is at."""
    location = f"{reference.partition('@')[0]}@{commit}"
    return f"{location}#{location}"


def _hub_commit(reference: str) -> str:
    from huggingface_hub import HfApi

    name = _hub_name(reference)
    try:
        info = HfApi().dataset_info(name.repository, revision=name.revision, timeout=10)
    except Exception as error:  # the Hub client's errors have no common base
        raise InputError(
            f"{reference}: cannot load this dataset from the Hub ({type(error).__name__}); check "
            "the name and the network, or download it and use the local file"
        ) from error
    return str(info.sha)


def _hub_rows(location: str) -> Iterator[Row | BadRow]:
    from datasets import load_dataset

    name = _hub_name(location)
    try:
        rows = load_dataset(
            name.repository, name.config, split=name.split, revision=name.revision, streaming=True
        )
        for number, fields in enumerate(rows, start=1):
            yield Row(number, fields)
    except Exception as error:  # datasets raises whatever its readers and the Hub's client raise
        said = str(error).strip().partition("\n")[0][:300]
        raise InputError(
            f"{location}: its split {name.split!r} cannot be read ({type(error).__name__}: {said});"
            " name a split (hub:org/name:split), and the configuration, if it has several "
            "(hub:org/name:configuration:split), or download the rows and use the local file"
        ) from error
