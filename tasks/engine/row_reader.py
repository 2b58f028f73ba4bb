"""Rows of an artifact's table by their number, read when they are asked for.

A table may be larger than memory, and a shard of a later stage needs a few of its rows. Only files
and row groups with wanted rows are read, and the last row group is kept: shards ask for rows that
follow one another.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Generic

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.engine.artifact import Artifact
from tasks.engine.tables import Record, num_rows, schema_of, to_records


class RowReader(Generic[Record]):
    """The rows of a table, over its shards, numbered from 0."""

    def __init__(self, artifact: Artifact, name: str, record: type[Record]) -> None:
        self._artifact, self._name, self._record = artifact, name, record
        self._shards = artifact.manifest.shards
        counts = (
            next(file.rows for file in shard.files if file.name == name) for shard in self._shards
        )
        sizes = [
            num_rows(artifact.path(shard, name)) if count is None else count
            for shard, count in zip(self._shards, counts, strict=True)
        ]
        self._starts = [0, *accumulate(sizes)]
        self._group: tuple[int, int, pa.Table] | None = None
        """First row, end, and rows of the last row group."""

    def __len__(self) -> int:
        return self._starts[-1]

    def between(self, start: int, stop: int) -> list[Record]:
        """Rows [start, stop)."""
        return self.take(range(start, stop))

    def take(self, rows: Sequence[int]) -> list[Record]:
        """The rows with these numbers, which ascend."""
        return [row for part in self._parts(rows) for row in to_records(part, self._record)]

    def _parts(self, rows: Sequence[int]) -> Iterator[pa.Table]:
        place = 0
        while place < len(rows):
            start, stop, table = self._group_of(rows[place])
            end = bisect_right(rows, stop - 1, lo=place)
            here = rows[place:end]
            if here[-1] - here[0] + 1 == len(here):
                yield table.slice(here[0] - start, len(here))
            else:
                yield table.take(pa.array([row - start for row in here], pa.int64()))
            place = end

    def _group_of(self, row: int) -> tuple[int, int, pa.Table]:
        if self._group is None or not self._group[0] <= row < self._group[1]:
            self._group = self._read_group(row)
        return self._group

    def _read_group(self, row: int) -> tuple[int, int, pa.Table]:
        shard = bisect_right(self._starts, row) - 1
        start = self._starts[shard]
        wanted = schema_of(self._record)
        with pq.ParquetFile(self._artifact.path(self._shards[shard], self._name)) as file:
            columns = [name for name in wanted.names if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if row < stop:
                    return start, stop, file.read_row_group(group, columns=columns)
                start = stop
        raise IndexError(row)
