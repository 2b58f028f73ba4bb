"""Reader and writer of all user files: JSON lines (also .gz), JSON arrays and Parquet.

Rows are read one at a time, except those of a JSON array, which is read as a whole. Lines end at
"\\n" only, because texts may contain U+2028 and other characters at which `str.splitlines` splits.
An invalid line is a `BadRow` with a reason, so that the caller can count it. A file that cannot be
read is an `InputError` that says what to do.

Writing is atomic: rows go to a temporary file beside the target, which replaces it when complete.
An earlier file survives a full disk, a crash and a row that cannot be written.
"""

import gzip
import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import uuid4

from infra.file_kinds import HEAD_BYTES, kind_of_bytes
from infra.parquet_rows import ROWS_PER_BATCH, invalid_parquet, parquet_schema, read_parquet_rows
from pvar.errors import InputError, StoreError
from pvar.records import BadRow, Row

if TYPE_CHECKING:
    import pyarrow as pa

STDIN = Path("-")
"""Standard input, which is read as JSON lines."""

JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
WRITABLE_LINES = (".jsonl", ".jsonl.gz")
PARQUET = (".parquet",)
ROW_FILES = JSON_LINES + PARQUET


def read_rows(path: Path, columns: Collection[str] | None = None) -> Iterator[Row | BadRow]:
    """Iterate over the rows of a file, or of standard input (`STDIN`).

    Blank lines are skipped. Of Parquet, only these columns are read; None means all. Raises
    InputError immediately for a file that is missing, unreadable or of an unknown type, and while
    reading for one that is empty or damaged.
    """
    if path == STDIN:
        return (row for row, _ in _parse_lines(sys.stdin.buffer, "standard input"))
    refuse_unreadable(path)
    if path.name.endswith(PARQUET):
        return read_parquet_rows(path, columns)
    return (row for row, _ in _read_json_lines(path))


def copy_lines(source: Path, target: Path, is_wanted: Callable[[Row], bool]) -> int:
    """Copy lines of a JSON-lines file byte for byte, in their order; return their number.

    Invalid lines are left out. Elements of a JSON array become lines. Writing is atomic. Raises
    InputError as `read_rows` and `write_rows`.
    """
    refuse_unreadable(source, JSON_LINES)
    num_lines = 0
    with _writing(target) as file:
        for row, line in _read_json_lines(source):
            if isinstance(row, Row) and is_wanted(row):
                file.write(_json_line(row.fields) if line is None else line)
                num_lines += 1
    return num_lines


def copy_parquet_rows(
    source: Path, target: Path, is_wanted: Callable[["pa.RecordBatch"], "pa.BooleanArray"]
) -> int:
    """Copy rows of a Parquet file, in their order and with its schema; return their number.

    `is_wanted` marks the rows of a part of the file. Writing is atomic.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_unreadable(source, PARQUET)
    parquet_schema(source)
    refuse_target(target)
    num_rows = 0
    try:
        with (
            pq.ParquetFile(source, page_checksum_verification=True) as file,
            _replacing(target) as copy,
            pq.ParquetWriter(
                copy,
                file.schema_arrow,
                compression="zstd",
                write_page_checksum=True,
                use_compliant_nested_type=False,  # else the elements of lists are renamed
            ) as writer,
        ):
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
                wanted = batch.filter(is_wanted(batch))
                writer.write_batch(wanted)
                num_rows += wanted.num_rows
    except pa.ArrowException as error:
        raise invalid_parquet(source, error) from error
    return num_rows


def refuse_unreadable(path: Path, kinds: tuple[str, ...] = ROW_FILES) -> None:
    """Raise InputError unless this is a readable file of one of these types."""
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise InputError(f"{path}: not a file; give one {_kinds(kinds)} file")
    if not path.name.endswith(kinds):
        raise InputError(f"{path}: unknown file type; its name must end with {_kinds(kinds)}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read it; try `chmod u+r {path}`")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; it must have at least one row")
    if path.name.endswith(ROW_FILES) and (kind := _other_kind(path)):
        raise InputError(f"{path}: this is {kind}")


def _other_kind(path: Path) -> str | None:
    """What the file is, and what to do, if it is not what its name says."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        kind = kind_of_bytes(head)
        if path.name.endswith(PARQUET):
            is_right, found = head.startswith(b"PAR1"), kind or _json_kind(head)
        elif path.name.endswith(".gz"):
            is_right, found = head.startswith(b"\x1f\x8b"), kind or _json_kind(head)
            if is_right:
                with gzip.open(path) as file:
                    inside = kind_of_bytes(file.read(HEAD_BYTES))
                return inside and f"compressed with gzip, and inside is {inside}"
        else:
            return kind
    except (OSError, EOFError, zlib.error):
        return None  # its reader says what is wrong
    return None if is_right else found


def _json_kind(head: bytes) -> str | None:
    is_json = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    return "JSON; its name must end with .jsonl" if is_json else None


def refuse_target(path: Path) -> None:
    """Raise InputError for a path to which no file can be written."""
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; give the path of a file")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")


def write_page(path: Path, page: str) -> None:
    """Write a page. Raises InputError if the path is not writable."""
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} is not writable ({error.strerror}); give another path with --out"
        ) from error


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write rows to a .jsonl, .jsonl.gz or .parquet file atomically; return their number.

    Equal rows give equal bytes. Raises InputError for an invalid target, StoreError if writing
    fails.
    """
    if path.name.endswith(PARQUET):
        refuse_target(path)
        with _replacing(path) as file:
            return _write_parquet(file, rows)
    if not path.name.endswith(WRITABLE_LINES):
        raise InputError(
            f"{path}: cannot write this file type; "
            f"the name must end with {_kinds((*WRITABLE_LINES, *PARQUET))}"
        )
    with _writing(path) as lines:
        return _write_json_lines(lines, rows)


@contextmanager
def _writing(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """A file of lines, packed if its name ends with .gz, that replaces `path` at the end."""
    refuse_target(path)
    with _replacing(path) as file:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                yield packed
        else:
            yield file


def _read_json_lines(path: Path) -> Iterator[tuple[Row | BadRow, bytes | None]]:
    """The rows with their lines; without for the elements of a JSON array."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            yield from _parse_lines(file, str(path))
    except gzip.BadGzipFile as error:
        raise InputError(f"{path}: not a gzip file ({error}); drop .gz from its name?") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is damaged ({error}); copy it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse_lines(file: Iterable[bytes], name: str) -> Iterator[tuple[Row | BadRow, bytes | None]]:
    is_empty = True
    lines = iter(file)
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not text.strip():
            continue
        if is_empty and text.lstrip().startswith(b"["):
            for row in _parse_array(b"".join([text, *lines]), name):
                yield row, None
            return
        is_empty = False
        yield _parse_line(number, text), line
    if is_empty:
        raise InputError(f"{name}: the file has no rows; it must have at least one")


def _parse_array(text: bytes, name: str) -> Iterator[Row | BadRow]:
    """The elements of a JSON array, numbered from 1."""
    try:
        values = json.loads(text.decode(), object_pairs_hook=_unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{name}: begins as a JSON array, and cannot be read as one ({error}); write the array "
            "again, or one object per line"
        ) from error
    if not values:
        raise InputError(f"{name}: the JSON array is empty; it must have at least one row")
    for number, value in enumerate(values, start=1):
        try:
            _refuse_half_characters(value, text)
        except UnicodeEncodeError as error:
            yield BadRow(number, f"not UTF-8: {error.reason}")
        else:
            yield _row(number, value)


def _parse_line(number: int, line: bytes) -> Row | BadRow:
    try:
        value = _from_json(line)
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        return BadRow(number, f"not UTF-8: {error.reason}")
    except (ValueError, RecursionError) as error:
        return BadRow(number, f"not JSON: {error}")
    return _row(number, value)


def _from_json(text: bytes) -> object:
    """The value. Raises ValueError, of which UnicodeError is one, and RecursionError."""
    value = json.loads(text.decode(), object_pairs_hook=_unique)
    _refuse_half_characters(value, text)
    return value


def _refuse_half_characters(value: object, text: bytes) -> None:
    """Raise UnicodeEncodeError if a text in the value of this JSON has half a surrogate pair."""
    if b"\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """The object; of a repeated key, one of the values would be dropped without a word."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name!r} occurs twice in an object")
    return fields


def _row(number: int, value: object) -> Row | BadRow:
    if not isinstance(value, dict):
        return BadRow(number, f"not a JSON object but {type(value).__name__}")
    return Row(number, value)


def _write_json_lines(file: IO[bytes] | gzip.GzipFile, rows: Iterable[Mapping[str, object]]) -> int:
    num_rows = 0
    for row in rows:
        file.write(_json_line(row))
        num_rows += 1
    return num_rows


def _json_line(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _write_parquet(file: IO[bytes], rows: Iterable[Mapping[str, object]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    remaining = iter(rows)
    tables = []
    while batch := list(islice(remaining, ROWS_PER_BATCH)):
        # Of rows alone, pyarrow takes the columns of the first.
        names = dict.fromkeys(name for row in batch for name in row)
        tables.append(pa.Table.from_pylist([{n: row.get(n) for n in names} for row in batch]))
    # Held until the end: a column that is all null at first has its type only later.
    table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return int(table.num_rows)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that replaces `path` when the block succeeds, and is removed otherwise."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path}: writing failed ({error.strerror or error}); an earlier file is unchanged. "
            "Free space, fix permissions or write elsewhere, and run again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _kinds(suffixes: Iterable[str]) -> str:
    return ", ".join(suffixes)
