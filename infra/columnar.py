"""PVar of a long Parquet table of scores (one row per response), which may exceed memory.

The columns `prompt_id` and `reward` are read once; the rows may have any order. A table of up to
`buffer_bytes` is computed at once. A larger one is partitioned into temporary files by a hash of
the prompt id, so that one file has all rows of a prompt, and computed file by file (the first half
of a Grace hash join); DuckDB partitions and writes them. They are in TMPDIR and take about as much
disk space as the two uncompressed columns.

pyarrow reads the table: its errors name the value that does not fit, and a name stands for one file
and one column (DuckDB expands `*` in a path and ignores the case of a column's name).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.errors import InputError
from pvar.variance import variance_by_prompt

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("prompt_id", "reward")

BUFFER_BYTES = 128 << 20
"""The two columns of about 4 million rows, as Arrow holds them."""

NUM_PARTITIONS = 64

SPILL_BYTES = 256 << 20
"""What DuckDB may hold while it writes them."""

ROW_GROUP_ROWS = 1 << 14
"""Of a partition's file: as many rows wait in memory for each."""

BATCH_ROWS = 1 << 17


class NotUtf8Error(InputError):
    """A prompt id is not UTF-8: the rows must be read one by one to leave out those."""


class VarianceTable(NamedTuple):
    """PVar by prompt. The order is arbitrary, but the same for the same input."""

    prompt_ids: npt.NDArray[Any]
    """(P,) numpy StringDType, whose items are str; whole-number ids become their decimal text."""
    num_responses: npt.NDArray[np.int32]
    """(P,) responses with a reward."""
    pvar: npt.NDArray[np.float64]
    """(P,) NaN for fewer than two rewards."""
    stderr: npt.NDArray[np.float64]
    """(P,) NaN for fewer than three rewards."""
    num_rows: int
    num_without_id: int
    """Rows without a prompt id, which are left out."""
    num_missing: int
    """Rows with a prompt id whose reward is null or not finite."""
    num_pairs: int
    num_saturated: int
    """Pairs with |p − ½| > 0.49."""


def variance_from_file(
    path: str | Path, *, scale: float, buffer_bytes: int = BUFFER_BYTES
) -> VarianceTable:
    """Compute PVar of every prompt of a Parquet file.

    Raises InputError for a file that cannot be read, lacks a column or has other types,
    NotUtf8Error for a prompt id that is no text, ConfigError for a scale that is not positive.
    """
    parts = list(iter_variance(path, scale=scale, buffer_bytes=buffer_bytes))
    end = sum(len(part.pvar) for part in parts)
    prompt_ids = np.empty(end, np.dtypes.StringDType())
    num_responses = np.empty(end, np.int32)
    pvar, stderr = np.empty((2, end))
    counts = np.zeros(5, np.int64)
    while parts:  # each is freed as it is copied, from the heap's end: never two whole tables
        part = parts.pop()
        rows = slice(end - len(part.pvar), end)
        prompt_ids[rows], num_responses[rows] = part.prompt_ids, part.num_responses
        pvar[rows], stderr[rows] = part.pvar, part.stderr
        counts += part[4:]
        end = rows.start
    return VarianceTable(prompt_ids, num_responses, pvar, stderr, *counts.tolist())


class LongRewards(NamedTuple):
    """Whole prompts of a long table: one row per response, in any order."""

    prompt_ids: npt.NDArray[Any]
    """(P,) numpy StringDType, whose items are str; whole-number ids become their decimal text."""
    prompt_index: npt.NDArray[np.int32]
    """(R,) index of the row's prompt."""
    rewards: npt.NDArray[np.float64]
    """(R,) NaN where null."""
    num_rows: int
    num_without_id: int
    """Rows without a prompt id, which are left out."""

    @property
    def num_missing(self) -> int:
        """Rows with a prompt id whose reward is null or not finite."""
        return int(np.count_nonzero(~np.isfinite(self.rewards)))


def iter_variance(
    path: str | Path, *, scale: float, buffer_bytes: int = BUFFER_BYTES
) -> Iterator[VarianceTable]:
    """Like `variance_from_file`, in parts of whole prompts, with bounded memory."""
    for part in iter_rewards(path, buffer_bytes=buffer_bytes):
        result = variance_by_prompt(part.prompt_index, part.rewards, scale=scale)
        yield VarianceTable(
            part.prompt_ids,
            result.num_responses,
            result.pvar,
            result.stderr,
            num_rows=part.num_rows,
            num_without_id=part.num_without_id,
            num_missing=part.num_missing,
            num_pairs=result.pairs.num_pairs,
            num_saturated=result.pairs.num_saturated,
        )


def iter_rewards(path: str | Path, *, buffer_bytes: int = BUFFER_BYTES) -> Iterator[LongRewards]:
    """Read the rewards in parts of whole prompts, with bounded memory.

    Raises InputError as `variance_from_file`.
    """
    import pyarrow as pa

    batches = _batches(path)
    buffered: list[pa.RecordBatch] = []
    buffered_bytes = 0
    for batch in batches:
        buffered.append(batch)
        buffered_bytes += batch.nbytes
        if buffered_bytes > buffer_bytes:
            break
    else:
        yield _long_rewards(pa.Table.from_batches(buffered, _schema()))
        return

    def rows() -> Iterator[pa.RecordBatch]:
        while buffered:
            yield buffered.pop(0)
        yield from batches

    with tempfile.TemporaryDirectory() as folder:
        for table in _partitioned(rows(), Path(folder)):
            yield _long_rewards(table)


def _schema() -> "pa.Schema":
    import pyarrow as pa

    fields: list[tuple[str, pa.DataType]] = [("prompt_id", pa.string()), ("reward", pa.float64())]
    return pa.schema(fields)


def _long_rewards(table: "pa.Table") -> LongRewards:
    num_rows = len(table)
    table = table.filter(table["prompt_id"].is_valid())
    ids = table["prompt_id"].combine_chunks().dictionary_encode()
    rewards = table["reward"].to_numpy()  # null becomes NaN
    return LongRewards(
        _strings(ids.dictionary.to_pylist()),
        ids.indices.to_numpy(),
        rewards,
        num_rows=num_rows,
        num_without_id=num_rows - len(rewards),
    )


def _strings(values: list[Any]) -> npt.NDArray[Any]:
    """Strings as StringDType, which takes half the memory of a list of str."""
    return np.array(values, dtype=np.dtypes.StringDType())


def _partitioned(batches: Iterator["pa.RecordBatch"], folder: Path) -> Iterator["pa.Table"]:
    """The rows by a hash of their prompt id, within it in the order they came in."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    _spill(batches, folder / "partitions", folder / "duckdb")
    for partition in sorted((folder / "partitions").iterdir()):
        files = sorted(partition.iterdir())
        yield pa.concat_tables([pq.ParquetFile(file).read().cast(_schema()) for file in files])
        for file in files:
            file.unlink()


def _spill(batches: Iterator["pa.RecordBatch"], partitions: Path, temporary: Path) -> None:
    import duckdb
    import pyarrow as pa

    failures: list[InputError] = []

    def rows() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except InputError as error:
            failures.append(error)  # DuckDB turns it into one of its own
            raise

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{SPILL_BYTES}B",
        "temp_directory": str(temporary),  # its default is a folder where the user is
        "threads": 1,  # keeps the order of the rows, and was the fastest
    }
    with duckdb.connect(config=settings) as database:
        source = pa.RecordBatchReader.from_batches(_schema(), rows())
        partition = f"hash(prompt_id) % {NUM_PARTITIONS} AS partition"
        try:
            database.from_arrow(source).project(f"prompt_id, reward, {partition}").write_parquet(
                str(partitions),
                partition_by=["partition"],
                compression="uncompressed",
                row_group_size=ROW_GROUP_ROWS,
            )
        except duckdb.Error as error:
            raise (failures[0] if failures else error) from None


def _batches(path: str | Path) -> Iterator["pa.RecordBatch"]:
    """Batches of the two columns, in the schema above."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            names = file.schema_arrow.names
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise InputError(
                    f"{path}: no column {' and '.join(missing)}; its columns are {', '.join(names)}"
                )
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(COLUMNS)):
                yield _valid(batch.select(list(COLUMNS)).cast(_schema(), safe=False), path)
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as Parquet ({said}); check the file") from error


def _valid(batch: "pa.RecordBatch", path: str | Path) -> "pa.RecordBatch":
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise NotUtf8Error(f"{path}: a prompt_id is not UTF-8; write the texts in UTF-8") from error
    return batch
