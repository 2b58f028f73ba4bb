"""A file that is not what its name says is named by its content."""

import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.file_kinds import kind_of_bytes
from infra.row_files import read_rows
from pvar.errors import InputError

LINE = json.dumps({"prompt": "Why is the sky blue — and not green?"}, ensure_ascii=False)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"prompt": ["Why?"]}), sink)
    return sink.getvalue().to_pybytes()


CONTENTS: dict[str, tuple[bytes, str]] = {
    "lfs": (POINTER, "a Git LFS pointer; run `git lfs pull`"),
    "gzip": (gzip.compress(LINE.encode()), "compressed with gzip"),
    "xz": (lzma.compress(LINE.encode()), "compressed with xz"),
    "zstd": (pa.compress(LINE.encode(), codec="zstd", asbytes=True), "compressed with zstd"),
    "parquet": (parquet(), "a Parquet file; its name must end with .parquet"),
    "html": (b"\n<!DOCTYPE html><title>404</title>", "an HTML or XML page"),
    "utf-16": (LINE.encode("utf-16"), "text in UTF-16"),
    "utf-16, unmarked": (LINE.encode("utf-16-le"), "text in UTF-16 or UTF-32"),
    "utf-32": (LINE.encode("utf-32"), "text in UTF-32"),
    "zero": (bytes(5000), "zero bytes only"),
    "csv": (b"prompt,chosen,rejected\nWhy?,Yes.,No.\n", "CSV; write one JSON object per line"),
    "tsv": (b"prompt\tlabel\nWhy?\t1\n", "tab-separated values"),
}
"""Content, and how it is named."""

NAMES = ("data.jsonl", "data.jsonl.gz", "data.parquet")
RIGHT = {("gzip", "data.jsonl.gz"), ("parquet", "data.parquet")}


@pytest.mark.parametrize("content", list(CONTENTS))
@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_named_by_its_content(name: str, content: str, tmp_path: Path) -> None:
    data, kind = CONTENTS[content]
    (tmp_path / name).write_bytes(data)
    if (content, name) in RIGHT:
        assert len(list(read_rows(tmp_path / name))) == 1
        return
    with pytest.raises(InputError) as caught:
        list(read_rows(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}: this is {kind}")


def test_json_lines_where_another_form_is_said(tmp_path: Path) -> None:
    for name in ("data.jsonl.gz", "data.parquet"):
        (tmp_path / name).write_text(LINE + "\n")
        with pytest.raises(InputError, match=r"this is JSON; its name must end with \.jsonl"):
            list(read_rows(tmp_path / name))


@pytest.mark.parametrize(
    "head",
    [
        b'{"prompt": "Why?"}\n',
        b'\xef\xbb\xbf  [{"prompt": "Why?"}]',
        b"not json\n",
        b"Hello, world, how are you?\n",
        "préférence\n".encode(),
        b"\xff\x00\xff",
        b"",
    ],
)
def test_json_and_what_is_not_known_have_no_kind(head: bytes) -> None:
    assert kind_of_bytes(head) is None or not head.strip(b"\xff\x00")
