import gzip
import io
import json
import subprocess
import sys
import textwrap
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.row_files import STDIN, BadRow, Row, copy_parquet_rows, read_rows, write_rows
from pvar.errors import InputError, StoreError

ROWS = [
    {"prompt_id": "a", "text": "one\u2028two\u2029three\x85four\x0bfive", "reward": 1.5},
    {"prompt_id": "ß", "text": 'quote " and \\ and \n newline', "reward": None},
]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_what_is_written_is_read_back_with_every_unicode_line_break(tmp_path, name):
    assert write_rows(tmp_path / name, ROWS) == 2
    assert [row.fields for row in read_rows(tmp_path / name)] == ROWS
    assert [row.number for row in read_rows(tmp_path / name)] == [1, 2]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_equal_rows_make_equal_bytes(tmp_path, name):
    (tmp_path / "later").mkdir()
    write_rows(tmp_path / name, ROWS)
    write_rows(tmp_path / "later" / name, ROWS)
    assert (tmp_path / name).read_bytes() == (tmp_path / "later" / name).read_bytes()


def test_a_raw_line_separator_inside_a_string_does_not_end_the_line(tmp_path):
    path = written(tmp_path / "rows.jsonl", '{"text": "a\u2028b"}\n{"text": "c\x85d"}\n')
    assert [row.fields["text"] for row in read_rows(path)] == ["a\u2028b", "c\x85d"]


def test_bad_lines_are_named_by_number_and_reason_and_the_others_are_read(tmp_path):
    lines = [
        b'{"n": 1}',
        b"{broken",
        b'{"text": "\xff"}',
        b"[1, 2]",
        b"",
        b'{"text": "\\ud83d"}',  # half an emoji: no such text can be written as UTF-8
        b'{"text": "\\ud83d\\ude00"}',
        b"[" * 100_000,
        b"1" * 5000,
        b'{"n": 2}',
    ]
    rows = list(read_rows(written(tmp_path / "rows.jsonl", b"\n".join(lines))))
    assert [row.fields for row in rows if isinstance(row, Row)] == [
        {"n": 1},
        {"text": "😀"},
        {"n": 2},
    ]
    assert [(row.number, row.reason.split(":")[0]) for row in rows if isinstance(row, BadRow)] == [
        (2, "not JSON"),
        (3, "not UTF-8"),
        (4, "not a JSON object but list"),
        (6, "not UTF-8"),
        (8, "not JSON"),
        (9, "not JSON"),
    ]


def test_windows_line_ends_a_byte_order_mark_and_a_missing_last_newline_are_harmless(tmp_path):
    path = written(tmp_path / "rows.json", b'\xef\xbb\xbf{"n": 1}\r\n{"n": 2}')
    assert list(read_rows(path)) == [Row(1, {"n": 1}), Row(2, {"n": 2})]


def test_standard_input_is_read_as_json_lines(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b'{"n": 1}\n'))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(read_rows(STDIN)) == [Row(1, {"n": 1})]


def test_elements_of_a_json_array_are_rows(tmp_path):
    written(tmp_path / "a.json", b' [\n{"n": 1},\n 2, {"n": 3}]\n')
    assert list(read_rows(tmp_path / "a.json")) == [
        Row(1, {"n": 1}),
        BadRow(2, "not a JSON object but int"),
        Row(3, {"n": 3}),
    ]


def test_rows_are_read_lazily(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress(b'{"n": 1}\n' * 100_000, mtime=0)
    written(path, whole[: len(whole) // 2])
    assert next(read_rows(path)) == Row(1, {"n": 1})


def half_gzip() -> bytes:
    return gzip.compress(json.dumps({"text": "x" * 1000}).encode(), mtime=0)[:-12]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n \n", "no rows"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "no rows"),
        ("rows.csv", b"a,b\n", r"must end with \.jsonl"),
        ("array.json", b' [\n{"n": 1}\n', "begins as a JSON array, and cannot be read as one"),
        ("array.json", b"[]", "the JSON array is empty"),
        ("plain.jsonl.gz", b'{"n": 1}\n', "this is JSON"),
        ("not.jsonl.gz", b"rows", "not a gzip file"),
        ("cut.jsonl.gz", half_gzip(), "damaged"),
        ("rows.parquet", b'{"n": 1}\n', "this is JSON"),
        ("not.parquet", b"rows", "not a valid Parquet file"),
    ],
)
def test_files_that_cannot_be_read_say_so_with_their_path(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        written(path, content)
    with pytest.raises(InputError, match=message) as error:
        list(read_rows(path))
    assert str(path) in str(error.value)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        read_rows(tmp_path)


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="no rows"):
        list(read_rows(tmp_path / "rows.parquet"))


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    write_rows(path, ({"n": number, "text": f"{number:x}" * 9} for number in range(20_000)))
    content = bytearray(path.read_bytes())
    content[1000:9000] = bytes(8000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a valid Parquet file"):
        list(read_rows(path))


@pytest.mark.parametrize("table", [{"abcd": [1]}, {"x": [{"abcd": 1}]}])
def test_a_parquet_file_with_a_name_that_is_not_utf_8_is_refused(tmp_path, table):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(table), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"abcd", b"a\xa1cd"))
    with pytest.raises(InputError, match=r"not a valid Parquet file .*; copy it again"):
        list(read_rows(path))


def test_a_parquet_column_may_be_null_for_longer_than_a_batch(tmp_path):
    rows = [{"reward": None}] * 10_000 + [{"reward": 0.5}]
    write_rows(tmp_path / "rows.parquet", rows)
    assert [row.fields for row in read_rows(tmp_path / "rows.parquet")] == rows


def test_a_failing_row_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = written(tmp_path / "rows.jsonl", b'{"old": true}\n')
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_rows(path, [{"n": 1}, {"n": float("nan")}])
    assert path.read_bytes() == b'{"old": true}\n'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_a_disk_that_fills_up_leaves_the_old_file_and_no_rubbish(tmp_path, name):
    path = written(tmp_path / name, b"old")
    # A limit on the size of files makes the write fail midway as a full disk does.
    program = textwrap.dedent(
        """
        import random, resource, sys
        from pathlib import Path
        from infra.row_files import write_rows
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        noise = random.Random(0)
        write_rows(Path(sys.argv[1]), ({"text": noise.randbytes(50).hex()} for _ in range(50_000)))
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=False
    )
    assert f"{StoreError.__name__}: {path}: writing failed (File too large)" in run.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_targets_that_are_not_possible_are_refused_before_a_row_is_asked_for(tmp_path):
    def rows():
        raise AssertionError("no row is needed to refuse the target")
        yield {}

    with pytest.raises(InputError, match="must end with"):
        write_rows(tmp_path / "rows.csv", rows())
    with pytest.raises(InputError, match="does not exist"):
        write_rows(tmp_path / "nowhere" / "rows.jsonl", rows())
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="this is a folder"):
        write_rows(tmp_path / "folder.jsonl", rows())


def test_a_folder_that_cannot_be_written_to_is_a_store_error():
    with pytest.raises(StoreError, match="writing failed"):
        write_rows(Path("/proc/rows.jsonl"), [{"n": 1}])


def test_a_parquet_row_that_is_not_utf_8_is_bad_alone(tmp_path: Path) -> None:
    texts = [b"one", b"two", b"caf\xe9", b"four", b"five"]
    column = pa.array(texts, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": column}), tmp_path / "rows.parquet")
    rows = list(read_rows(tmp_path / "rows.parquet"))
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert [row.fields["prompt"] for row in rows if isinstance(row, Row)] == [
        "one", "two", "four", "five",
    ]  # fmt: skip
    (bad,) = [row for row in rows if isinstance(row, BadRow)]
    assert (bad.number, bad.reason) == (3, "not UTF-8: unexpected end of data")


def test_values_of_parquet_are_those_that_json_has(tmp_path):
    path = tmp_path / "rows.parquet"
    columns = {
        "whole": pa.array([Decimal(7), None], pa.decimal128(20, 0)),
        "part": pa.array([[Decimal("1.50")], []], pa.list_(pa.decimal128(5, 2))),
        "day": pa.array([date(2026, 11, 27), None]),
        "time": pa.array([datetime(2026, 11, 27, 1, 2, tzinfo=UTC), None]),
        "kind": pa.array(["a", None]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), path)
    first, second = read_rows(path)
    assert first == Row(
        1,
        {
            "whole": 7,
            "part": [1.5],
            "day": "2026-11-27",
            "time": "2026-11-27T01:02:00+00:00",
            "kind": "a",
        },
    )
    assert second.fields == {"whole": None, "part": [], "day": None, "time": None, "kind": None}


def test_a_date_that_python_does_not_have_is_a_bad_row(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"day": pa.array([0, 2**31 - 1, 1], pa.date32())}), path)
    found = list(read_rows(path))
    assert [isinstance(row, BadRow) for row in found] == [False, True, False]
    assert found[1].number == 2


@pytest.mark.parametrize(
    "line", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', '{"a": [{"b": 1, "c": 1, "b": 2}]}']
)
def test_a_key_that_occurs_twice_makes_a_bad_row(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n" + '{"a": 1}' + "\n")
    bad, good = read_rows(path)
    assert "occurs twice in an object" in bad.reason
    assert good == Row(2, {"a": 1})


@pytest.mark.parametrize(
    "table",
    [
        pa.table([[1], [2]], names=["a", "a"]),
        pa.table({"x": pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])}),
    ],
)
def test_a_column_that_occurs_twice_is_refused(tmp_path, table):
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    with pytest.raises(InputError, match="'a' is the name of two columns; rename one of them"):
        list(read_rows(path))
    with pytest.raises(InputError, match="'a' is the name of two columns"):
        copy_parquet_rows(path, tmp_path / "out.parquet", lambda batch: batch)


def test_half_a_surrogate_pair_in_an_array_costs_its_element(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"a": "whole"}, {"a": "\\ud800"}, {"a": "\\ud83d\\ude00"}]')
    assert list(read_rows(path)) == [
        Row(1, {"a": "whole"}),
        BadRow(2, "not UTF-8: surrogates not allowed"),
        Row(3, {"a": "😀"}),
    ]
