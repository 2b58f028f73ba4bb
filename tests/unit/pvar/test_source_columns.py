"""The user's names of columns."""

import pytest

from pvar.errors import InputError
from pvar.records import BadRow, Row
from pvar.source_columns import SourceColumns, rows_in_form

COLUMNS = SourceColumns(prompt="question", chosen="rejected", rejected="chosen")


def test_columns_are_read_by_the_users_names() -> None:
    bad = BadRow(3, "not JSON")
    rows = [
        Row(1, {"question": "Why?", "chosen": "No.", "rejected": "Yes.", "source": "web"}),
        Row(2, {"prompt": "Who?"}),
        bad,
    ]
    first, second, third = rows_in_form(rows, "auto", COLUMNS, "file")
    same = {"prompt": "Why?", "chosen": "Yes.", "rejected": "No.", "source": "web"}
    assert first == Row(1, same)
    assert second == Row(2, {"prompt": "Who?"})  # a row without the columns keeps its own
    assert third is bad


def test_a_row_of_two_forms_says_which() -> None:
    row = Row(7, {"instruction": "Why?", "conversations": []})
    (bad,) = rows_in_form([row], "auto", SourceColumns(), "file")
    assert isinstance(bad, BadRow)
    assert bad.rule == "ambiguous_form"
    assert bad.reason.startswith("alpaca or sharegpt? Set ingest.format: {'instruction'")


def test_a_column_that_no_row_has_is_named() -> None:
    rows = [Row(1, {"text": "Why?"}), Row(2, {"text": "Who?", "id": 1})]
    with pytest.raises(
        InputError,
        match=r"file: no row has the column 'txt' \(ingest.columns.prompt\); .* text, id",
    ):
        list(rows_in_form(rows, "auto", SourceColumns(prompt="txt"), "file"))
