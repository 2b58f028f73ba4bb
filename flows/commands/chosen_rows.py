"""Write the rows of chosen prompts, as they are in the user's file."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from flows.commands.parquet_columns import is_parquet, is_read_by_row
from flows.commands.parquet_types import plain_type
from flows.commands.row_columns import needed_columns, usable_id
from infra.parquet_rows import table_rows
from infra.row_files import (
    PARQUET,
    STDIN,
    WRITABLE_LINES,
    copy_lines,
    copy_parquet_rows,
    refuse_target,
)
from pvar.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa


def refuse_rows_target(source: Path, target: Path) -> None:
    """Raise an error unless rows of `source` can be written to `target` unchanged."""
    if source == STDIN:
        raise ConfigError(
            "--rows reads the input twice, but standard input can be read once; give a file"
        )
    kinds = PARQUET if is_parquet(source) else WRITABLE_LINES
    if not target.name.endswith(kinds):
        raise ConfigError(
            f"--rows is {target}, but the rows of {source} stay in its format; the name must end "
            f"with {' or '.join(kinds)}"
        )
    refuse_target(target)
    refuse_own_input(source, target, "--rows")


def refuse_own_input(source: Path, target: Path, option: str) -> None:
    """Raise ConfigError if the target is the input: writing it would lose what was not chosen."""
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigError(f"{option} is {target}, which is the input itself; name another file")


def write_chosen_rows(
    source: Path, target: Path, prompt_ids: NDArray[Any], number_columns: Collection[str]
) -> int:
    """Write the usable rows of these prompts, unchanged and in their order; return their number.

    Lines stay the same bytes, and a Parquet file keeps its schema. `number_columns` are those that
    the rows were read with.
    """
    chosen = frozenset(prompt_ids.tolist())
    if not is_parquet(source):
        return copy_lines(source, target, lambda row: usable_id(row, number_columns) in chosen)
    import pyarrow as pa
    import pyarrow.compute as pc

    def is_chosen(batch: "pa.RecordBatch") -> "pa.BooleanArray":
        ids = batch.column("prompt_id")
        plain = ids.cast(plain_type(ids.type))
        return pc.is_in(plain, pa.array(chosen, plain.type))

    def is_row_chosen(batch: "pa.RecordBatch") -> "pa.BooleanArray":
        needed = [name for name in batch.schema.names if names is None or name in names]
        rows = table_rows(batch.select(needed))
        return pa.array([usable_id(row, number_columns) in chosen for row in rows], pa.bool_())

    names = needed_columns(source, number_columns)
    by_row = is_read_by_row(source, number_columns)
    return copy_parquet_rows(source, target, is_row_chosen if by_row else is_chosen)
