"""Tables of records as Parquet files: one Arrow schema per record, in one place.

The same rows give the same bytes (fixed schema and compression, no timestamps), so that a rerun of
a deterministic stage gives the same manifest.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pvar.records import Message, Pair, Prompt, Response, Score, Verdict

Record = TypeVar("Record", bound=NamedTuple)
"""One of the records in `_COLUMNS`."""


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


class TokenPair(NamedTuple):
    """A pair of token ids for the trainer."""

    pair_id: str
    """Hash of prompt id, chosen and rejected answer."""
    prompt_id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    """The answer without the prompt, including its end."""
    rejected_ids: list[int]


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


class RejectedRow(NamedTuple):
    """A rejected row, with the name of the rule and details."""

    row_id: str
    rule: str
    detail: str


_TEXT, _REAL, _WHOLE, _FLAG = pa.string(), pa.float64(), pa.int32(), pa.bool_()
_IDS = pa.list_(pa.int32())
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

_COLUMNS: dict[type[Any], dict[str, pa.DataType]] = {
    Prompt: {
        "prompt_id": _TEXT,
        "messages": _MESSAGES,
        "split": _TEXT,
        "source": _TEXT,
        "chosen": _TEXT,
        "rejected": _TEXT,
        "chosen_score": _REAL,
        "rejected_score": _REAL,
        "chosen_aspects": pa.list_(pa.float64()),
        "accepted_answers": pa.list_(_TEXT),
    },
    Response: {
        "prompt_id": _TEXT,
        "response_id": _TEXT,
        "sample_index": _WHOLE,
        "text": _TEXT,
        "num_tokens": _WHOLE,
        "finish_reason": _TEXT,
    },
    Score: {"prompt_id": _TEXT, "response_id": _TEXT, "reward": _REAL, "reason": _TEXT},
    Pair: {
        "prompt_id": _TEXT,
        "messages": _MESSAGES,
        "chosen": _TEXT,
        "rejected": _TEXT,
        "chosen_reward": _REAL,
        "rejected_reward": _REAL,
    },
    Verdict: {"prompt_id": _TEXT, "preference": _REAL, "reason": _TEXT},
    PromptVariance: {
        "prompt_id": _TEXT,
        "num_responses": _WHOLE,
        "pvar": _REAL,
        "stderr": _REAL,
        "selected": _FLAG,
    },
    MeasuredPrompt: {"prompt_id": _TEXT, "measure": _TEXT, "value": _REAL},
    TrainStep: {"step": _WHOLE, **dict.fromkeys(TrainStep._fields[1:], _REAL)},
    TokenPair: {
        "pair_id": _TEXT,
        "prompt_id": _TEXT,
        "prompt_ids": _IDS,
        "chosen_ids": _IDS,
        "rejected_ids": _IDS,
    },
    ReferenceLogps: {"pair_id": _TEXT, **dict.fromkeys(ReferenceLogps._fields[1:], _REAL)},
    JudgedShowing: {
        "prompt_id": _TEXT,
        "is_swapped": _FLAG,
        "preference": _REAL,
        "evidence": _TEXT,
        "reason": _TEXT,
    },
    RejectedRow: dict.fromkeys(RejectedRow._fields, _TEXT),
}


def write_table(path: Path, rows: Iterable[Record], record: type[Record]) -> int:
    """Write the rows as Parquet and return their number."""
    dicts = [_to_dict(row) for row in rows]
    table = pa.Table.from_pylist(dicts, schema=pa.schema(_COLUMNS[record]))
    pq.write_table(table, path, compression="zstd")
    return len(dicts)


def read_table(path: Path, record: type[Record]) -> list[Record]:
    """Read the rows of a file that `write_table` wrote."""
    columns = pq.read_table(path, schema=pa.schema(_COLUMNS[record])).to_pylist()
    make: Callable[..., Record] = record
    return [make(**_from_dict(row)) for row in columns]


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
