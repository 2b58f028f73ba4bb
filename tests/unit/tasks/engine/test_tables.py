"""Tables of records: what was written is read again, also by a version that knows more columns."""

from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from tasks.engine.tables import JudgedShowing, read_table, write_table

ROWS = [
    JudgedShowing("p0", False, 0.75, "B. [[B>A]]", None, "gpt-4.1-2025-04-14", "fp_a"),
    JudgedShowing("p0", True, None, None, "timeout"),
]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert write_table(tmp_path / "showings.parquet", ROWS, JudgedShowing) == 2
    assert read_table(tmp_path / "showings.parquet", JudgedShowing) == ROWS


class _EarlierShowing(NamedTuple):
    """The columns of version 0.1.0."""

    prompt_id: str
    is_swapped: bool
    preference: float | None
    evidence: str | None
    reason: str | None


def test_a_column_that_an_earlier_file_lacks_is_none(tmp_path: Path) -> None:
    path = tmp_path / "showings.parquet"
    write_table(path, [_EarlierShowing(*row[:5]) for row in ROWS], _EarlierShowing)
    assert "served_model" not in pq.read_schema(path).names

    assert read_table(path, JudgedShowing) == [
        row._replace(served_model=None, system_fingerprint=None) for row in ROWS
    ]
