"""CSV files of rows."""

from pathlib import Path

import pytest

from infra.csv_rows import read_csv_rows
from infra.sources import pin_source, source_rows
from pvar.errors import InputError
from pvar.records import BadRow, Row


def write(folder: Path, content: bytes) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(content)
    return path


def test_rows_are_numbered_by_the_line_where_they_begin(tmp_path: Path) -> None:
    content = (
        '\ufeffprompt, chosen\r\nWhy?,Yes.\r\n"Two\nlines, and ""quotes""",\r\n\r\n\u2028,x\r\n'
    )
    path = write(tmp_path, content.encode())
    rows = [
        Row(2, {"prompt": "Why?", "chosen": "Yes."}),
        Row(3, {"prompt": 'Two\nlines, and "quotes"', "chosen": None}),
        Row(6, {"prompt": "\u2028", "chosen": "x"}),
    ]
    assert list(read_csv_rows(path)) == rows
    assert list(source_rows(pin_source(str(path), tmp_path), tmp_path)) == rows


def test_a_bad_row_costs_itself_only(tmp_path: Path) -> None:
    content = b'a,b\n1,2\n1,2,3\n1\n\xff,2\n"x"y,2\n' + b"x" * 200_000 + b",2\n"
    rows = list(read_csv_rows(write(tmp_path, content)))
    assert rows[:4] == [
        Row(2, {"a": "1", "b": "2"}),
        BadRow(3, "not CSV: 3 cells for 2 columns"),
        BadRow(4, "not CSV: 1 cells for 2 columns"),
        BadRow(5, "not UTF-8"),
    ]
    assert isinstance(rows[4], BadRow)
    assert rows[5] == Row(7, {"a": "x" * 200_000, "b": "2"})  # more than the library's default


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'a,b\n1,2\n"x,2\n3,4\n',
            r'the quote \("\) that opens in the row of line 3 is not closed',
        ),
        (b"a,b\n", "the file has no rows"),
        (b"a,,c\n1,2,3\n", "must have a name for each column, all different, and has 'a', '', 'c'"),
        (b"a,a\n1,2\n", "all different"),
        (b"\xff,a\n1,2\n", "its first line is not UTF-8"),
        (b"a;b\n1;2\n", "separated by semicolons"),
        (b"a\tb\n1\t2\n", "separated by tabs"),
        (b'{"prompt": "Why?"}\n', "this is JSON; its name must end with .jsonl"),
        ("a,b\n1,2\n".encode("utf-16"), "this is text in UTF-16; write it in UTF-8"),
        (b"PK\x03\x04", "this is a ZIP archive"),
    ],
)
def test_a_file_that_is_none_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as raised:
        list(read_csv_rows(write(tmp_path, content)))
    assert len(str(raised.value).splitlines()) == 1
