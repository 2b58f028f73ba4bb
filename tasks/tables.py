"""Tables of records as Parquet files: one Arrow schema per record, in one place.

The same rows give the same bytes (fixed schema, compression and no timestamps), which is what lets
a rerun of a deterministic stage end in the same manifest.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pvar.records import Message, Pair, Prompt, Response, Score, Verdict

Record = TypeVar("Record", bound=NamedTuple)


class PromptVariance(NamedTuple):
    """One prompt's measures, as the selection saw them. Missing measures are None."""

    prompt_id: str
    num_responses: int
    """Responses with a reward."""
    pvar: float | None
    stderr: float | None
    reward_gap: float | None
    reward_variance: float | None
    disagreement: float | None
    """Standard deviation over reward models; None with a single one."""
    selected: bool


class TrainStep(NamedTuple):
    """What TRL logged at one optimiser step."""

    step: int
    epoch: float
    loss: float
    margin: float
    """Mean of chosen minus rejected implicit reward, in units of β · log-probability."""
    accuracy: float
    """Share of pairs with a positive margin."""
    chosen_reward: float
    rejected_reward: float
    grad_norm: float
    learning_rate: float


class RejectedRow(NamedTuple):
    """A row that did not go on, with the name of the rule and what was seen."""

    row_id: str
    rule: str
    detail: str


_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_PAIR = [("prompt_id", pa.string()), ("messages", _MESSAGES)]

_SCHEMAS: dict[type[Any], Any] = {
    Prompt: pa.schema(
        [
            *_PAIR,
            ("split", pa.string()),
            ("source", pa.string()),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("chosen_score", pa.float64()),
            ("rejected_score", pa.float64()),
            ("chosen_aspects", pa.list_(pa.float64())),
        ]
    ),
    Response: pa.schema(
        [
            ("prompt_id", pa.string()),
            ("response_id", pa.string()),
            ("sample_index", pa.int32()),
            ("text", pa.string()),
            ("num_tokens", pa.int32()),
            ("finish_reason", pa.string()),
        ]
    ),
    Score: pa.schema(
        [
            ("prompt_id", pa.string()),
            ("response_id", pa.string()),
            ("reward", pa.float64()),
            ("reason", pa.string()),
        ]
    ),
    Pair: pa.schema(
        [
            *_PAIR,
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("chosen_reward", pa.float64()),
            ("rejected_reward", pa.float64()),
        ]
    ),
    Verdict: pa.schema(
        [("prompt_id", pa.string()), ("preference", pa.float64()), ("reason", pa.string())]
    ),
    PromptVariance: pa.schema(
        [
            ("prompt_id", pa.string()),
            ("num_responses", pa.int32()),
            *(
                (name, pa.float64())
                for name in ("pvar", "stderr", "reward_gap", "reward_variance", "disagreement")
            ),
            ("selected", pa.bool_()),
        ]
    ),
    TrainStep: pa.schema(
        [("step", pa.int32()), *((name, pa.float64()) for name in TrainStep._fields[1:])]
    ),
    RejectedRow: pa.schema([(name, pa.string()) for name in RejectedRow._fields]),
}


def write_table(path: Path, rows: Iterable[Record], record: type[Record]) -> int:
    """Write the rows as Parquet and return their number."""
    dicts = [_to_dict(row) for row in rows]
    table = pa.Table.from_pylist(dicts, schema=_SCHEMAS[record])
    pq.write_table(table, path, compression="zstd")
    return len(dicts)


def read_table(path: Path, record: type[Record]) -> list[Record]:
    """Read the rows of a file that `write_table` wrote."""
    columns = pq.read_table(path, schema=_SCHEMAS[record]).to_pylist()
    return [record(**_from_dict(row)) for row in columns]


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
    if "chosen_aspects" in values:
        values["chosen_aspects"] = tuple(values["chosen_aspects"])
    return values
