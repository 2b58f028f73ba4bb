"""Rows of a table by their number: the same as reading all, from as few files as needed."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pvar.artifacts import FileRecord, Manifest, ShardRecord
from pvar.records import Message, Prompt, Score
from pvar.row_counts import RowCounts
from tasks.engine import tables
from tasks.engine.artifact import Artifact, ArtifactKeys, sha256_of
from tasks.engine.row_reader import RowReader
from tasks.engine.tables import read_table, schema_of, write_table
from tests.workflow import open_wiring

NAME = "scores.parquet"


def put_shards(folder: Path, sizes: list[int]) -> Artifact:
    """A table of scores r0, r1, … over shards of these sizes."""
    store, keys = open_wiring(folder).store, ArtifactKeys("score", "0123456789abcdef")
    shards, start = [], 0
    for index, size in enumerate(sizes):
        rows = [Score(f"p{n // 2}", f"r{n}", float(n)) for n in range(start, start + size)]
        start += size
        path = folder / f"{index}.parquet"
        write_table(path, rows, Score)
        place = f"shards/{index:05d}-x"
        store.upload(path, f"{keys.root}/{place}/{NAME}")
        file = FileRecord(
            name=NAME, num_bytes=path.stat().st_size, sha256=sha256_of(path), rows=size
        )
        counts = RowCounts(rows_in=size, rows_out=size)
        shards.append(ShardRecord(index=index, folder=place, files=(file,), row_counts=counts))
    manifest = Manifest(
        stage="score", version=1, digest=keys.digest, inputs={}, shards=tuple(shards),
        row_counts=RowCounts(rows_in=start, rows_out=start), summary={},
    )  # fmt: skip
    return Artifact(store, keys, manifest, folder / "read")


def test_any_rows_are_those_of_the_whole_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 3)
    artifact = put_shards(tmp_path, [7, 0, 1, 6])
    everything = artifact.rows(NAME, Score)
    reader = RowReader(artifact, NAME, Score)
    assert len(reader) == len(everything) == 14
    for start in range(14):
        for stop in range(start, 15):
            assert reader.between(start, stop) == everything[start:stop]
    assert reader.take([0, 2, 3, 8, 13]) == [everything[row] for row in (0, 2, 3, 8, 13)]
    assert reader.take([]) == []


def test_only_the_files_with_the_wanted_rows_are_fetched(tmp_path: Path) -> None:
    artifact = put_shards(tmp_path, [4, 4, 4])
    assert [row.response_id for row in RowReader(artifact, NAME, Score).between(5, 7)] == [
        "r5", "r6",
    ]  # fmt: skip
    assert [path.parent.name for path in artifact.cache.rglob("*.parquet")] == ["00001-x"]


def test_large_tables_are_written_in_parts_and_small_ones_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Prompt(f"p{n}", (Message("user", "?"),), "train", "x") for n in range(6)]
    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    assert write_table(small, iter(rows), Prompt) == 6
    pq.write_table(
        pq.read_table(small, schema=schema_of(Prompt)), tmp_path / "was", compression="zstd"
    )
    assert small.read_bytes() == (tmp_path / "was").read_bytes()
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 3)
    assert write_table(large, iter(rows), Prompt) == 6
    assert pq.read_metadata(large).num_row_groups == 2
    assert read_table(large, Prompt) == rows
