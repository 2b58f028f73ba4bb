"""PVar of a long Parquet table of scores (one row a response) that need not fit in memory.

One pass over the columns `prompt_id` and `reward`, rows of a prompt anywhere in the file. A table
of up to `buffer_bytes` is computed at once. A larger one is spilled into temporary files by a hash
of the prompt id, so that all rows of a prompt meet in one of them, and computed file by file (the
first half of a Grace hash join). The temporary files take about as much disk as the two columns do
uncompressed, in TMPDIR.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pvar.errors import InputError
from pvar.variance import variance_by_prompt

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("prompt_id", "reward")

BUFFER_BYTES = 256 << 20
"""The two columns of about 8 million rows, as Arrow holds them."""

NUM_PARTITIONS = 64

BATCH_ROWS = 1 << 17


class VarianceTable(NamedTuple):
    """PVar by prompt. Rows of the same input come in the same order, which means nothing."""

    prompt_ids: npt.NDArray[Any]
    """(P,) numpy StringDType, whose items are str; whole-number ids become their decimal text."""
    num_responses: npt.NDArray[np.int32]
    """(P,) responses with a reward."""
    pvar: npt.NDArray[np.float64]
    """(P,) NaN for fewer than two."""
    stderr: npt.NDArray[np.float64]
    """(P,) NaN for fewer than three."""
    num_rows: int
    num_without_id: int
    """Rows without a prompt id, which are left out."""
    num_missing: int
    """Rows with one whose reward is null or not finite."""
    num_pairs: int
    num_saturated: int
    """Pairs with |p − ½| > 0.49."""


def variance_from_file(
    path: str | Path, *, scale: float, buffer_bytes: int = BUFFER_BYTES
) -> VarianceTable:
    """Compute PVar of every prompt of a Parquet file.

    Raises InputError for a file that cannot be read, lacks a column (named) or holds other types,
    ConfigError for a scale that is not positive.
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
    """Whole prompts of a long table: one row a response, rows of a prompt anywhere."""

    prompt_ids: npt.NDArray[Any]
    """(P,) numpy StringDType, whose items are str; whole-number ids become their decimal text."""
    prompt_index: npt.NDArray[np.int32]
    """(R,) which of the prompts the row belongs to."""
    rewards: npt.NDArray[np.float64]
    """(R,) NaN where null."""
    num_rows: int
    num_without_id: int
    """Rows without a prompt id, which are left out."""

    @property
    def num_missing(self) -> int:
        """Rows with an id whose reward is null or not finite."""
        return int(np.count_nonzero(~np.isfinite(self.rewards)))


def iter_variance(
    path: str | Path, *, scale: float, buffer_bytes: int = BUFFER_BYTES
) -> Iterator[VarianceTable]:
    """Like `variance_from_file`, in parts of whole prompts: memory stays flat for any table."""
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
    """The rewards in parts of whole prompts: memory stays flat for any table.

    Raises InputError as `variance_from_file`.
    """
    import pyarrow as pa

    buffered: list[pa.RecordBatch] = []
    buffered_bytes = 0
    with ExitStack() as stack:
        spill: _Spill | None = None
        for batch in _batches(path):
            if spill is not None:
                spill.write(batch)
                continue
            buffered.append(batch)
            buffered_bytes += batch.nbytes
            if buffered_bytes > buffer_bytes:
                spill = _Spill(Path(stack.enter_context(tempfile.TemporaryDirectory())))
                while buffered:
                    spill.write(buffered.pop(0))
        tables = spill.tables() if spill else iter([pa.Table.from_batches(buffered, _schema())])
        for table in tables:
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
    """Half of the memory of a list of str, which decides for tens of millions of prompts."""
    return np.array(values, dtype=np.dtypes.StringDType())


class _Spill:
    """Rows in temporary files, all rows of a prompt in the same one."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        self._paths = [folder / f"{number:02}.arrow" for number in range(NUM_PARTITIONS)]
        self._writers = [pa.ipc.new_file(str(path), _schema()) for path in self._paths]

    def write(self, batch: "pa.RecordBatch") -> None:
        partition = _hash(batch["prompt_id"]) % NUM_PARTITIONS
        order = np.argsort(partition.astype(np.uint8), kind="stable")
        sizes = np.bincount(partition, minlength=NUM_PARTITIONS)
        sorted_rows = batch.take(order)
        for writer, size, end in zip(self._writers, sizes, np.cumsum(sizes), strict=True):
            if size:
                writer.write_batch(sorted_rows.slice(end - size, size))

    def tables(self) -> Iterator["pa.Table"]:
        import pyarrow as pa

        for writer in self._writers:
            writer.close()
        for path in self._paths:
            with pa.OSFile(str(path), "rb") as file:
                yield pa.ipc.open_file(file).read_all()
            path.unlink()


def _hash(strings: "pa.Array[Any]") -> npt.NDArray[np.int64]:
    """A number from 0 to 2³¹ − 1 for each string, by its bytes alone: Σ byte · weight(place)."""
    _, offset_buffer, data = strings.buffers()
    offsets = np.frombuffer(memoryview(offset_buffer or b""), np.int32)
    offsets = offsets[strings.offset :][: len(strings) + 1]
    text = np.frombuffer(memoryview(data or b""), np.uint8)[offsets[0] : offsets[-1]]
    ends = offsets[1:] - offsets[0]
    lengths = np.diff(offsets)
    place = np.arange(len(text)) - np.repeat(ends - lengths, lengths)
    weights = np.random.default_rng(0).integers(1, 1 << 40, size=256, dtype=np.uint64)
    sums = np.zeros(len(text) + 1, np.uint64)
    np.cumsum(text * weights[place % 256], out=sums[1:])  # mod 2⁶⁴
    return np.asarray((sums[ends] - sums[ends - lengths]) >> np.uint64(33), np.int64)


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
                    f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(names)}"
                )
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(COLUMNS)):
                yield batch.select(list(COLUMNS)).cast(_schema())
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error
