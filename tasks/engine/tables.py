"""Tables of records as Parquet files: the columns follow from the types of a record's fields.

The same rows give the same bytes (fixed schema and compression, no timestamps), so that a rerun of
a deterministic stage gives the same manifest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from pvar.records import Message

ROWS_PER_GROUP = 8192
"""Rows of a row group: what is read at least, to have one row of a table."""

Record = TypeVar("Record", bound=NamedTuple)
"""A NamedTuple whose fields have columns (`schema_of`)."""


class PromptVariance(NamedTuple):
    """One prompt's PVar, as used by the selection. None is missing."""

    prompt_id: str
    num_responses: int
    """Responses with a reward."""
    pvar: float | None
    stderr: float | None
    selected: bool


class MeasuredPrompt(NamedTuple):
    """One measure of one prompt (`pvar.selection.MEASURES`), as used by the selection."""

    prompt_id: str
    measure: str
    value: float


class TrainStep(NamedTuple):
    """TRL's metrics of one optimiser step."""

    step: int
    epoch: float
    loss: float
    margin: float
    """Mean of chosen minus rejected implicit reward, in units of β · log-probability."""
    accuracy: float | None
    """Fraction of pairs with a positive margin; None for KTO, which does not use pairs."""
    chosen_reward: float
    rejected_reward: float
    grad_norm: float
    learning_rate: float
    tokens_per_second: float | None = None
    """Tokens of prompts and answers, over all processes."""
    num_tokens: int | None = None
    """Tokens of prompts and answers that are trained on, over all processes; None in older files.
    KTO's mismatched answers are not counted."""
    seconds: float | None = None
    """Time of the step, without checkpoints; None in older files."""


class TokenPair(NamedTuple):
    """A pair of token ids for the trainer."""

    pair_id: str
    """Hash of prompt id, chosen and rejected answer."""
    prompt_id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    """The answer without the prompt, including its end."""
    rejected_ids: list[int]


class HeldOutMargin(NamedTuple):
    """The margin of a pair that is not trained on (`tasks/training/held_out.py`)."""

    step: int
    """Number of steps made before; 0 is the starting policy."""
    pair_id: str
    prompt_id: str
    margin: float
    """Chosen minus rejected implicit reward, in the method's own units."""


class ReferenceLogps(NamedTuple):
    """The reference's log-probabilities of a pair's answers, in nats."""

    pair_id: str
    chosen: float
    rejected: float
    neighbour_chosen: float | None
    """Log-probability of the neighbour's chosen answer to this pair's prompt (KTO only)."""
    neighbour_rejected: float | None


class JudgedShowing(NamedTuple):
    """One pair of answers judged in one order."""

    prompt_id: str
    is_swapped: bool
    """The challenger's answer was shown first."""
    preference: float | None
    """Preference for the challenger, in [0, 1]."""
    evidence: str | None
    """The judge's reply."""
    reason: str | None
    """Why the preference is missing."""
    served_model: str | None = None
    """Name of the model that answered, in the server's words; None in older files, too."""
    system_fingerprint: str | None = None


class JudgedAnchor(NamedTuple):
    """A comparison that the judge was asked about again. Preferences are for the model's answer."""

    prompt_id: str
    is_swapped: bool
    """The model's answer was shown first."""
    earlier: float
    """When an earlier model was judged."""
    repeated: float
    """When the judge was asked again directly afterwards."""
    now: float | None
    reason: str | None
    """Why `now` is missing."""


class RejectedRow(NamedTuple):
    """A rejected row, with the name of the rule and details."""

    row_id: str
    rule: str
    detail: str


_COLUMNS: dict[type, pa.DataType] = {
    str: pa.string(),
    float: pa.float64(),
    int: pa.int32(),
    bool: pa.bool_(),
    Message: pa.struct([("role", pa.string()), ("content", pa.string())]),
}


@cache
def schema_of(record: type[NamedTuple]) -> pa.Schema:
    """The columns of a record, from the types of its fields; every column may hold nulls.

    Raises TypeError for a field that is none of str, int (32 bits), float, bool, Message, a Literal
    of texts, and tuples or lists of these.
    """
    hints = get_type_hints(record)
    return pa.schema(
        [(name, _column(hints[name], f"{record.__name__}.{name}")) for name in record._fields]
    )


def _column(annotation: Any, where: str) -> pa.DataType:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        (present,) = (each for each in arguments if each is not NoneType)
        return _column(present, where)
    if origin is Literal:
        return _column(type(arguments[0]), where)
    if origin in (tuple, list):
        return pa.list_(_column(arguments[0], where))
    if annotation in _COLUMNS:
        return _COLUMNS[annotation]
    known = ", ".join(kind.__name__ for kind in _COLUMNS)
    raise TypeError(
        f"{where} is of type {annotation}, which has no column; use {known}, or a tuple of one "
        "of them"
    )


def write_table(path: Path, rows: Iterable[Record], record: type[Record]) -> int:
    """Write the rows as Parquet, a row group after the other, and return their number."""
    schema, remaining, num_rows = schema_of(record), iter(rows), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while (group := [*islice(remaining, ROWS_PER_GROUP)]) or not num_rows:
            dicts = [_to_dict(row) for row in group]
            writer.write_table(pa.Table.from_pylist(dicts, schema=schema))
            num_rows += len(group)
            if len(group) < ROWS_PER_GROUP:
                break
    return num_rows


def read_table(path: Path, record: type[Record]) -> list[Record]:
    """Read the rows of a file that `write_table` wrote; a column that it lacks is None."""
    return to_records(pq.read_table(path, schema=schema_of(record)), record)


def to_records(table: pa.Table, record: type[Record]) -> list[Record]:
    """The rows of a table with the columns of a record; one that it lacks is None."""
    lacking = dict.fromkeys(set(record._fields) - set(table.column_names))
    make: Callable[..., Record] = record
    return [make(**_from_dict({**lacking, **row})) for row in table.to_pylist()]


def read_parts(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a Parquet file in parts, in this order, with bounded memory."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=list(columns)):
            yield batch.select(list(columns))


def plain_rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The rows of a part of a table, as plain values."""
    columns: list[list[Any]] = [column.to_pylist() for column in batch.columns]
    return zip(*columns, strict=True)


def plain_values(batch: pa.RecordBatch, column: int = 0) -> list[Any]:
    """The values of a column of a part of a table."""
    return list(batch.column(column).to_pylist())


def num_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def by_prompt(rows: Sequence[Record]) -> dict[str, list[Record]]:
    """Group rows by their prompt id, keeping their order."""
    groups: dict[str, list[Record]] = {}
    for row in rows:
        groups.setdefault(row.prompt_id, []).append(row)  # type: ignore[attr-defined]
    return groups


def _to_dict(row: NamedTuple) -> dict[str, object]:
    values = row._asdict()
    if "messages" in values:
        values["messages"] = [message._asdict() for message in values["messages"]]
    return values


def _from_dict(values: dict[str, Any]) -> dict[str, Any]:
    if "messages" in values:
        values["messages"] = tuple(Message(**message) for message in values["messages"])
    for name in ("chosen_aspects", "accepted_answers"):
        if name in values:
            values[name] = tuple(values[name])
    return values
