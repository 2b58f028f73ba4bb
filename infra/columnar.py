"""PVar of a long table of scores (one row a response) that need not fit in memory.

One pass over the columns `prompt_id` and `reward`, rows of a prompt anywhere in the file. A table
within `BUFFER_BYTES` is computed at once. A larger one is spilled into temporary files by a hash of
the prompt id, so that all rows of a prompt meet in one of them, and computed file by file
(a Grace hash join's first half). The temporary files take about as much disk as the two columns,
in TMPDIR.
"""

import gzip
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from pvar.errors import InputError
from pvar.variance import variance_by_prompt

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("prompt_id", "reward")

BUFFER_BYTES = 256 << 20
"""Arrow bytes of the two columns that are computed in memory, about 8 million rows."""

NUM_PARTITIONS = 64

BATCH_ROWS = 1 << 20

JSON_BLOCK_BYTES = 32 << 20
"""Read at once; a longer line is refused."""


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
    num_missing: int
    """Rows whose reward is null or not finite."""
    num_pairs: int
    num_saturated: int
    """Pairs with |p − ½| > 0.49."""


def variance_from_file(path: str | Path, *, scale: float) -> VarianceTable:
    """Compute PVar of every prompt of a JSONL or Parquet file, plain or gzipped; `-` is stdin.

    The kind of file is read from its first bytes. Raises InputError for a file that cannot be read,
    lacks a column (named), or holds a row without prompt id; ConfigError for a bad scale.
    """
    parts = list(iter_variance(path, scale=scale))
    return VarianceTable(
        np.concatenate([part.prompt_ids for part in parts]),
        np.concatenate([part.num_responses for part in parts]),
        np.concatenate([part.pvar for part in parts]),
        np.concatenate([part.stderr for part in parts]),
        num_rows=sum(part.num_rows for part in parts),
        num_missing=sum(part.num_missing for part in parts),
        num_pairs=sum(part.num_pairs for part in parts),
        num_saturated=sum(part.num_saturated for part in parts),
    )


def iter_variance(path: str | Path, *, scale: float) -> Iterator[VarianceTable]:
    """Like `variance_from_file`, in parts of whole prompts: memory stays flat for any table."""
    import pyarrow as pa

    buffered: list[pa.RecordBatch] = []
    buffered_bytes = 0
    with ExitStack() as stack:
        spill: _Spill | None = None
        for batch in _batches(path, stack):
            if spill is not None:
                spill.write(batch)
                continue
            buffered.append(batch)
            buffered_bytes += batch.nbytes
            if buffered_bytes > BUFFER_BYTES:
                spill = _Spill(Path(stack.enter_context(tempfile.TemporaryDirectory())))
                while buffered:
                    spill.write(buffered.pop(0))
        tables = spill.tables() if spill else iter([pa.Table.from_batches(buffered, _schema())])
        for table in tables:
            yield _variance(table, scale)


def _schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema({"prompt_id": pa.string(), "reward": pa.float64()})


def _variance(table: "pa.Table", scale: float) -> VarianceTable:
    ids = table["prompt_id"].combine_chunks().dictionary_encode()
    rewards = table["reward"].to_numpy()  # null becomes NaN
    if len(rewards) == 0:
        return VarianceTable(
            _strings([]), np.empty(0, np.int32), np.empty(0), np.empty(0), 0, 0, 0, 0
        )
    result = variance_by_prompt(ids.indices.to_numpy(), rewards, scale=scale)
    return VarianceTable(
        _strings(ids.dictionary.to_pylist()),
        result.num_responses,
        result.pvar,
        result.stderr,
        num_rows=len(rewards),
        num_missing=int(np.count_nonzero(~np.isfinite(rewards))),
        num_pairs=result.pairs.num_pairs,
        num_saturated=result.pairs.num_saturated,
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


def _batches(path: str | Path, stack: ExitStack) -> Iterator["pa.RecordBatch"]:
    """Batches of (prompt_id, reward) from either kind of file."""
    import pyarrow as pa

    file = _open(path, stack)
    try:
        raw = (
            _parquet_batches(file, path) if _peek(file, 4) == b"PAR1" else _json_batches(file, path)
        )
        for batch in raw:
            if batch["prompt_id"].null_count:
                raise InputError(f"{path}: {batch['prompt_id'].null_count} rows have no prompt_id")
            yield batch.cast(_schema())
    except pa.ArrowException as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _open(path: str | Path, stack: ExitStack) -> BinaryIO:
    """A seekable binary stream, unzipped. stdin and gzipped Parquet are read into memory."""
    if str(path) == "-":
        file = cast(BinaryIO, io.BytesIO(sys.stdin.buffer.read()))
    else:
        try:
            file = stack.enter_context(open(path, "rb"))  # noqa: SIM115 (the stack closes it)
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error.strerror}") from error
    if _peek(file, 2) != b"\x1f\x8b":
        return file
    unzipped = stack.enter_context(gzip.GzipFile(fileobj=file))
    try:
        is_parquet = _peek(cast(BinaryIO, unzipped), 4) == b"PAR1"
        return cast(BinaryIO, io.BytesIO(unzipped.read()) if is_parquet else unzipped)
    except (EOFError, OSError) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}") from error


def _peek(file: BinaryIO, size: int) -> bytes:
    start = file.read(size)
    file.seek(0)
    return start


def _parquet_batches(file: BinaryIO, path: str | Path) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    _require_columns(parquet.schema_arrow.names, path)
    yield from parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(COLUMNS))


def _json_batches(file: BinaryIO, path: str | Path) -> Iterator["pa.RecordBatch"]:
    """Lines end at \\n alone, so texts may hold U+2028 and other separators."""
    import pyarrow as pa
    import pyarrow.json

    first = _first_row(file, path)
    _require_columns(list(first), path)
    id_type: pa.DataType = pa.int64() if isinstance(first["prompt_id"], int) else pa.string()
    schema = pa.schema({"prompt_id": id_type, "reward": pa.float64()})
    yield from pyarrow.json.open_json(
        file,
        read_options=pyarrow.json.ReadOptions(block_size=JSON_BLOCK_BYTES),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore"
        ),
    )


def _first_row(file: BinaryIO, path: str | Path) -> dict[str, object]:
    line = next((line for line in file if line.strip()), None)
    file.seek(0)
    if line is None:
        raise InputError(f"{path} has no rows")
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{path} is neither Parquet nor JSONL: first row: {error}") from error
    if not isinstance(row, dict):
        raise InputError(f"{path}: the first row is not a JSON object")
    return row


def _require_columns(names: list[str], path: str | Path) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(
            f"{path} lacks the column {' and '.join(missing)}; it has {', '.join(names)}"
        )
