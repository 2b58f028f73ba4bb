"""What a file is by its first bytes, for errors about one that is not what its name says."""

import csv

HEAD_BYTES = 4096

_MAGIC = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer; run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer; run `git annex get`"),
    (b"PAR1", "a Parquet file; its name must end with .parquet"),
    (b"ARROW1", "an Arrow file; write it as Parquet"),
    (b"\x1f\x8b", "compressed with gzip; its name must end with .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; decompress it"),
    (b"\xfd7zXZ\x00", "compressed with xz; decompress it"),
    (b"BZh", "compressed with bzip2; decompress it"),
    (b"PK\x03\x04", "a ZIP archive; unpack it"),
    (b"\xff\xfe\x00\x00", "text in UTF-32; write it in UTF-8"),
    (b"\x00\x00\xfe\xff", "text in UTF-32; write it in UTF-8"),
    (b"\xff\xfe", "text in UTF-16; write it in UTF-8"),
    (b"\xfe\xff", "text in UTF-16; write it in UTF-8"),
    (b"SQLite format 3\x00", "an SQLite database; export its rows"),
)
_HTML = (b"<!doctype html", b"<html", b"<?xml")


def kind_of_bytes(head: bytes) -> str | None:
    """What a file with these first bytes is, and what to do.

    None if they could be JSON lines, or if nothing is known about them.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:20].lower().startswith(_HTML):
        return "an HTML or XML page, as a server sends instead of a file; fetch the file itself"
    if head and not head.strip(b"\x00"):
        return "zero bytes only; copy it again"
    if head[1:2] == b"\x00" or head[:1] == b"\x00":
        return "text in UTF-16 or UTF-32; write it in UTF-8"
    if text[:1] in (b"{", b"["):
        return None
    return _kind_of_text(text)


def _kind_of_text(text: bytes) -> str | None:
    """CSV or YAML by its first line; None for anything else."""
    try:
        line = text.splitlines()[0].decode()
    except (IndexError, UnicodeDecodeError):
        return None
    if line.rstrip() == "---":
        return "YAML; write one JSON object per line"
    for delimiter, name in ((",", "CSV"), ("\t", "tab-separated values")):
        names = next(csv.reader([line], delimiter=delimiter))
        if len(names) > 1 and all(each.strip().replace(" ", "_").isidentifier() for each in names):
            also = " (ingest.source also reads .csv)" if name == "CSV" else ""
            return f"{name}; write one JSON object per line, or Parquet{also}"
    return None
