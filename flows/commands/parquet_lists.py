"""Lists of rewards of Parquet files, read without a loop over rows.

The rules are those of `flows/commands/row_columns.py`: a null in a list is a missing reward, and a
row without a list, or with an empty one, has one missing reward. Only files are read here in which
no row can be rejected: every prompt has an id, and one column has lists of numbers.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.commands.columns import ALL_LISTS, REWARD, REWARD_LISTS, STRINGS, Columns, rank_ids
from flows.commands.parquet_types import is_id, plain_type
from infra.parquet_rows import ROWS_PER_BATCH, has_no_null, invalid_parquet, parquet_schema
from infra.row_files import PARQUET, refuse_unreadable
from pvar.errors import InputError
from pvar.row_counts import RowCounts

if TYPE_CHECKING:
    import pyarrow as pa


def read_list_columns(path: Path, number_columns: Collection[str]) -> Columns | None:
    """Ids and rewards of a file with one list of rewards per prompt; None for any other file.

    Raises InputError for a file that is damaged or has no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = _list_column(path, number_columns)
    if name is None:
        return None
    ids: list[Any] = []
    parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            kind = plain_type(file.schema_arrow.field("prompt_id").type)
            batches = file.iter_batches(batch_size=ROWS_PER_BATCH, columns=["prompt_id", name])
            for batch in batches:
                ids.append(batch.column("prompt_id").cast(kind))
                parts.append(_rewards(batch.column(name)))
    except (pa.ArrowException, OSError) as error:
        raise invalid_parquet(path, error) from error
    num_rows = sum(map(len, ids))
    if not num_rows:
        raise InputError(f"{path}: the file has no rows; it must have at least one")
    try:
        for part in ids:
            part.validate(full=True)
    except pa.ArrowInvalid:  # an id that is not UTF-8 costs its row
        return None
    codes = pa.chunked_array(ids).combine_chunks().dictionary_encode()
    prompt_ids, rank = rank_ids(
        np.array(codes.dictionary.to_pylist(), np.int64 if pa.types.is_integer(kind) else STRINGS)
    )
    return Columns(
        str(path),
        prompt_ids,
        np.repeat(rank[codes.indices.to_numpy()], np.concatenate([part[0] for part in parts])),
        {REWARD: np.concatenate([part[1] for part in parts])},
        RowCounts(rows_in=num_rows, rows_out=num_rows),
        None,
    )


def _list_column(path: Path, number_columns: Collection[str]) -> str | None:
    """The one column of lists of numbers; None if rows have to be looked at."""
    if not path.name.endswith(PARQUET) or REWARD not in number_columns:
        return None
    refuse_unreadable(path)
    schema = parquet_schema(path)
    names = {*schema.names}
    lists = names & {*ALL_LISTS}
    if len(lists) != 1 or names & {*number_columns} or "prompt_id" not in names:
        return None
    (name,) = lists
    is_list = name in REWARD_LISTS and _has_numbers(schema.field(name).type)
    has_ids = is_id(schema.field("prompt_id").type) and has_no_null(path, "prompt_id")
    return name if is_list and has_ids else None


def _has_numbers(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        return False
    of = kind.value_type
    return bool(pa.types.is_integer(of) or pa.types.is_float32(of) or pa.types.is_float64(of))


def _rewards(lists: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many rewards each row has, at least one, and all of them; NaN is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    given = pc.list_flatten(lists).cast(pa.float64(), safe=False)
    counts = np.maximum(lengths, 1)
    rewards = np.full(int(counts.sum()), np.nan)
    rewards[np.repeat(lengths > 0, counts)] = given.to_numpy(zero_copy_only=False)
    return counts, rewards
