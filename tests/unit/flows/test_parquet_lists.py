"""Lists of rewards are read as a whole where no row can be rejected, by the rules for rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.commands.columns import REWARD
from flows.commands.parquet_columns import read_lists_or_rows
from flows.commands.parquet_lists import read_list_columns
from flows.commands.row_columns import read_row_columns
from pvar.errors import InputError

LISTS = [[1.5, None, -2.0], None, [], [float("nan"), float("inf")], [3.0], [None]]
IDS = ["b", "a", "c", "b", "é", "a"]
LIST = pa.list_(pa.float64())


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


@pytest.mark.parametrize(
    ("ids", "lists"),
    [
        (IDS, pa.array(LISTS, LIST)),
        (IDS, pa.array(LISTS, pa.large_list(pa.float32()))),
        ([2, 1, 2, 3, -1, 2**62], pa.array([[2**53 + 1, None], [], None, [3], [4], [5]])),
        (IDS, pa.array([[1, 2]] * 6, pa.list_(pa.uint64(), 2))),
        (pa.array(IDS).dictionary_encode(), pa.array(LISTS, LIST)),
    ],
)
def test_lists_are_read_as_row_by_row(tmp_path: Path, ids: Any, lists: pa.Array) -> None:
    path = write(tmp_path / "x.parquet", scores=lists, prompt_id=ids, other=["x"] * 6)
    found, expected = read_list_columns(path, (REWARD,)), read_row_columns(path, (REWARD,))
    assert found is not None
    assert found.prompt_ids.tolist() == expected.prompt_ids.tolist()
    assert found.prompt_ids.dtype == expected.prompt_ids.dtype
    assert found.prompt_index.tolist() == expected.prompt_index.tolist()
    np.testing.assert_array_equal(found.numbers[REWARD], expected.numbers[REWARD])
    assert found[4:] == expected[4:]


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt_id": ["a", None], "rewards": [[1.0], [2.0]]},
        {"prompt_id": ["a", "b"], "rewards": [["1"], ["2"]]},
        {"prompt_id": ["a", "b"], "rewards": [[True], [False]]},
        {"prompt_id": ["a", "b"], "rewards": [[1.0], [2.0]], "scores": [[1.0], None]},
        {"prompt_id": ["a", "b"], "rewards": [[1.0], [2.0]], "reward": [1.0, None]},
        {"prompt_id": ["a", "b"], "completions": [[{"response": "x", "overall_score": 1.0}]] * 2},
        {"prompt": ["a", "b"], "rewards": [[1.0], [2.0]]},
    ],
)
def test_where_a_row_must_be_looked_at_they_are_read_one_by_one(
    tmp_path: Path, columns: dict[str, Any]
) -> None:
    assert read_list_columns(write(tmp_path / "x.parquet", **columns), (REWARD,)) is None


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.parquet", prompt_id=pa.array([], "string"), rewards=pa.array([], LIST)
    )
    with pytest.raises(InputError, match="the file has no rows; it must have at least one"):
        read_lists_or_rows(path, (REWARD,))
