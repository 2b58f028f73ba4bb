import pytest
from pydantic import ValidationError

from pvar.row_counts import RowCounts


def test_accounts_that_lose_a_row_are_refused():
    with pytest.raises(ValidationError, match="5 in, but 3 out and 1 rejected"):
        RowCounts(rows_in=5, rows_out=3, rejected={"empty": 1})


def test_the_sum_keeps_every_reason_and_every_row():
    first = RowCounts(rows_in=5, rows_out=3, rejected={"tie": 1, "empty": 1})
    second = RowCounts(rows_in=4, rows_out=2, rejected={"empty": 2})
    assert first + second == RowCounts(rows_in=9, rows_out=5, rejected={"empty": 3, "tie": 1})


def test_no_accounts_are_the_neutral_element():
    shard = RowCounts(rows_in=2, rows_out=1, rejected={"tie": 1})
    assert sum([shard, shard], RowCounts()) == RowCounts(rows_in=4, rows_out=2, rejected={"tie": 2})


def test_accounts_survive_json():
    shard = RowCounts(rows_in=2, rows_out=1, rejected={"tie": 1})
    assert RowCounts.model_validate_json(shard.model_dump_json()) == shard
