"""The same rows as JSON lines and as Parquet, which has every column in every row, are the same."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.row_files import read_rows, write_rows
from pvar.incoming_rows import parse_row

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": text},
    optional={"tool_calls": st.none()},
)
messages = st.lists(message, max_size=3)

COLUMNS: dict[str, st.SearchStrategy[object]] = {
    "messages": messages,
    "system": text,
    "score_chosen": st.floats(allow_nan=False, allow_infinity=False),
    "score_rejected": st.integers(-(2**40), 2**40),
    "chosen_ratings": st.lists(st.floats(1, 5), max_size=3),
    "completion": text,
    "label": st.booleans(),
    "answer": text,
    "tools": st.lists(text, max_size=1),
    "images": st.none(),
}


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, object]]:
    """Rows with the same type in each column; any value may be null or not there."""
    conversational = draw(st.booleans())
    columns = COLUMNS | {
        "prompt": messages if conversational else text,
        "chosen": messages if conversational else text,
        "rejected": messages if conversational else text,
    }
    chosen = draw(st.lists(st.sampled_from(sorted(columns)), min_size=1, unique=True))
    row = st.fixed_dictionaries({}, optional={name: st.none() | columns[name] for name in chosen})
    return draw(st.lists(row.filter(bool), min_size=1, max_size=6))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl.gz"])
@given(tables())
def test_rows_mean_the_same_in_both(name: str, rows: list[dict[str, object]]) -> None:
    with TemporaryDirectory() as folder:
        read = []
        for path in (Path(folder) / "rows.jsonl", Path(folder) / name):
            write_rows(path, rows)
            read.append([parse_row(row, "file", "system") for row in read_rows(path)])
    assert read[0] == read[1]
