"""PVar of long Parquet tables: the same whether computed at once or through temporary files."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pvar
from infra.columnar import BATCH_ROWS, iter_variance, variance_from_file
from pvar.errors import InputError

SPILL = 1_000  # bytes: every table of these tests goes through the temporary files


@pytest.fixture
def scores(tmp_path):
    """900 prompts with 5 responses in random order, with the rewards as a matrix."""
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(900, 5))
    rewards[3, 1] = np.nan
    rewards[4, :4] = np.nan
    ids = np.array([f"prompt é {number}" for number in range(900)])
    order = rng.permutation(rewards.size)
    path = tmp_path / "scores.parquet"
    columns = {
        "text": ["a\u2028b"] * rewards.size,
        "reward": pa.array(rewards.reshape(-1)[order], from_pandas=True),  # NaN as null
        "prompt_id": np.repeat(ids, 5)[order],
    }
    pq.write_table(pa.table(columns), path, row_group_size=1000)
    return path, ids, rewards


@pytest.mark.parametrize("buffer_bytes", [SPILL, 1 << 30])
def test_agrees_with_the_matrix(scores, buffer_bytes):
    path, ids, rewards = scores
    table = variance_from_file(path, scale=2.0, buffer_bytes=buffer_bytes)
    assert sorted(table.prompt_ids.tolist()) == sorted(ids.tolist())
    row_of = {each: row for row, each in enumerate(table.prompt_ids.tolist())}
    rows = [row_of[each] for each in ids.tolist()]
    expected = pvar.preference_variance(rewards, scale=2.0)
    np.testing.assert_allclose(table.pvar[rows], expected, rtol=1e-12)
    np.testing.assert_allclose(
        table.stderr[rows], pvar.preference_variance_stderr(rewards, scale=2.0), rtol=1e-9
    )
    np.testing.assert_array_equal(table.num_responses[rows], np.isfinite(rewards).sum(axis=1))
    assert (table.num_rows, table.num_without_id, table.num_missing) == (4500, 0, 5)
    # 898 whole prompts with 10 pairs, one with four rewards (6), one with a single one (0).
    assert table.num_pairs == 8986


def test_parts_hold_whole_prompts(scores):
    path, ids, _ = scores
    parts = list(iter_variance(path, scale=1.0, buffer_bytes=SPILL))
    assert len(parts) > 10
    assert sorted(each for part in parts for each in part.prompt_ids.tolist()) == sorted(ids)


def test_the_temporary_files_are_removed(scores, tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    parts = iter_variance(scores[0], scale=1.0, buffer_bytes=SPILL)
    next(parts)
    assert list(folder.iterdir())
    parts.close()
    assert not list(folder.iterdir())


def test_two_runs_give_the_same_bits_in_the_same_order(scores):
    first, second = (variance_from_file(scores[0], scale=1.0, buffer_bytes=SPILL) for _ in "12")
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_value_that_does_not_fit_is_named_also_while_temporary_files_are_written(tmp_path):
    path = tmp_path / "scores.parquet"
    rewards = ["1.5"] * (BATCH_ROWS + 1) + ["good"]
    pq.write_table(pa.table({"prompt_id": ["a"] * len(rewards), "reward": rewards}), path)
    with pytest.raises(InputError, match=r"cannot be read as Parquet .*good"):
        variance_from_file(path, scale=1.0, buffer_bytes=SPILL)


@pytest.mark.parametrize("buffer_bytes", [SPILL, 1])
def test_ids_of_every_type_and_length_become_texts(tmp_path, buffer_bytes):
    for number, ids in enumerate(
        [pa.array([7, 7, -1, 7]), pa.array(["", "", "x" * 500, ""]).dictionary_encode()]
    ):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"prompt_id": ids, "reward": [1, 1, 2, 3]}), path)
        table = variance_from_file(path, scale=1.0, buffer_bytes=buffer_bytes)
        found = dict(zip(table.prompt_ids.tolist(), table.num_responses.tolist(), strict=True))
        assert found == ({"7": 3, "-1": 1} if number == 0 else {"": 3, "x" * 500: 1})


def test_rows_without_id_are_counted_and_left_out(tmp_path):
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"prompt_id": ["a", None, "a"], "reward": [1.0, 5.0, 1.0]}), path)
    for buffer_bytes in (0, 1 << 30):
        table = variance_from_file(path, scale=1.0, buffer_bytes=buffer_bytes)
        assert table.prompt_ids.tolist() == ["a"]
        assert table.pvar.tolist() == [0.0]
        assert (table.num_rows, table.num_without_id) == (3, 1)


def test_a_table_without_rows_has_no_prompts(tmp_path):
    path = tmp_path / "empty.parquet"
    schema = pa.schema({"prompt_id": pa.string(), "reward": pa.float32()})
    pq.write_table(schema.empty_table(), path)
    assert variance_from_file(path, scale=1.0).pvar.shape == (0,)


def test_files_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "scores.parquet"
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        variance_from_file(path, scale=1.0)
    path.write_text('{"prompt_id": 1, "reward": 2}\n')
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        variance_from_file(path, scale=1.0)
    pq.write_table(pa.table({"prompt_id": ["a"], "score": [1.0]}), path)
    with pytest.raises(InputError, match="no column reward; its columns are prompt_id, score"):
        variance_from_file(path, scale=1.0)
    pq.write_table(pa.table({"prompt_id": ["a"], "reward": ["good"]}), path)
    with pytest.raises(InputError, match="good"):
        variance_from_file(path, scale=1.0)


def test_a_damaged_page_is_named_in_one_line(tmp_path):
    path = tmp_path / "scores.parquet"
    pq.write_table(pa.table({"prompt_id": ["a"], "reward": [1.0]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 4 + content[8:])
    with pytest.raises(InputError, match="cannot be read as Parquet") as error:
        variance_from_file(path, scale=1.0)
    assert "\n" not in str(error.value)
