"""Epochs of a judge: the times between which it is known to have changed its answers.

    judges/{digest of the judge's settings}/epoch-0002.json

Epoch 1 has no object. A check that finds that the judge has changed puts the next one, unless it is
there: numbers only grow, and two processes that find the same change begin the same epoch. The
epoch is identity of stage judge, so judgments of different epochs are different artifacts.
"""

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from pvar.digest import digest
from pvar.identity import identity
from pvar.judge_config import JudgeConfig
from pvar.ports import Store
from tasks.engine.artifact import read_document

FIRST_EPOCH = 1


class JudgeEpoch(BaseModel):
    """The beginning of an epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int = Field(ge=2)
    began_at: AwareDatetime
    """When the change was found."""
    judge: dict[str, JsonValue]
    """The judge's settings, for reading."""
    found_by: str
    """The artifact (`judge/digest`) whose check found the change."""
    reason: str


def judge_digest(judge: JudgeConfig) -> str:
    """The digest of a pinned judge's settings."""
    return digest(identity(judge))


def current_epoch(store: Store, judge: JudgeConfig) -> int:
    """The judge's latest epoch."""
    numbers = (
        int(info.key.rpartition("-")[2].removesuffix(".json"))
        for info in store.list(f"{_folder(judge)}/epoch-")
    )
    return max(numbers, default=FIRST_EPOCH)


def read_epoch(store: Store, judge: JudgeConfig, epoch: int) -> JudgeEpoch | None:
    """How an epoch began; None for the first."""
    return read_document(store, _key(judge, epoch), JudgeEpoch)


def begin_epoch(
    store: Store, judge: JudgeConfig, *, epoch: int, found_by: str, reason: str
) -> None:
    """Begin an epoch, unless another process has."""
    record = JudgeEpoch(
        epoch=epoch,
        began_at=datetime.now(UTC),
        judge=identity(judge),
        found_by=found_by,
        reason=reason,
    )
    store.create(_key(judge, epoch), record.model_dump_json(indent=1).encode() + b"\n")


def _folder(judge: JudgeConfig) -> str:
    return f"judges/{judge_digest(judge)}"


def _key(judge: JudgeConfig, epoch: int) -> str:
    return f"{_folder(judge)}/epoch-{epoch:04d}.json"
