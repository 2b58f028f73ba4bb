"""When to retrain: the configuration, the records of what was used, and the decision.

New files are collected into batches. A batch is one pipeline run's data; its record lists its
files, so the records of all batches together are the watermark: a file is new if no record has it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pvar.accounts import Accounts
from pvar.config import PipelineConfig
from pvar.config_model import ConfigModel


class RetrainConfig(ConfigModel):
    """What is watched, when that is enough for a run, and what is run."""

    incoming: str = Field(default="incoming", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$")
    """Prefix in the store under which new JSONL and Parquet files of preferences or prompts are
    put. Put them whole (an S3 put, or a rename into the folder)."""
    min_new_pairs: int = Field(default=500, ge=1)
    """Start a run when so many new rows wait. A prompt counts like a preference: selection makes
    a pair of it."""
    max_days_between_runs: float | None = Field(default=7, gt=0)
    """Start a run with fewer new rows when the last one is so long ago. None waits for enough."""
    max_attempts: int = Field(default=3, ge=1)
    """Runs of one batch that may fail before it is set aside for a person to look at."""
    pipeline: PipelineConfig = PipelineConfig()
    """What is run; its `ingest.source` is replaced by the batch."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IncomingFile(_Record):
    """A file under the incoming prefix, as it was when it was looked at."""

    key: str
    num_bytes: int
    modified: AwareDatetime
    sha256: str
    """Of the content: the same content under another name is not new."""
    accounts: Accounts

    @property
    def version(self) -> tuple[str, int, datetime]:
        """Key, size and time: what a listing says, so that a known file is not read again."""
        return self.key, self.num_bytes, self.modified


class Batch(_Record):
    """The files of one pipeline run. Its record is put once, and makes them used."""

    number: int = Field(ge=1)
    created_at: AwareDatetime
    data: str
    """Key of the object that holds the rows of all files."""
    files: tuple[IncomingFile, ...]
    duplicates: tuple[IncomingFile, ...]
    """Files whose content is that of another file, of this batch or an earlier one."""
    reasons: tuple[str, ...]
    """Why a run was started."""

    @property
    def num_pairs(self) -> int:
        """Rows of all files, prompts and preferences alike."""
        return sum(file.accounts.rows_out for file in self.files)


class RetrainDecision(NamedTuple):
    """Whether to start a run, and why or why not."""

    start: bool
    reasons: tuple[str, ...]


def decide_retraining(
    config: RetrainConfig,
    waiting: Sequence[IncomingFile],
    last_batch_at: datetime | None,
    now: datetime,
) -> RetrainDecision:
    """Enough new rows, or enough time since the last batch (before the first one: since the
    oldest file came). Without new rows there is never a run."""
    num_pairs = sum(file.accounts.rows_out for file in waiting)
    if num_pairs == 0:
        return RetrainDecision(False, ("no new data",))
    enough = num_pairs >= config.min_new_pairs
    reasons = [
        f"{num_pairs} new pairs in {len(waiting)} files, min_new_pairs is {config.min_new_pairs}"
    ]
    is_due = False
    if config.max_days_between_runs is not None:
        since = last_batch_at or min(file.modified for file in waiting)
        is_due = now - since >= timedelta(days=config.max_days_between_runs)
        what = "last batch" if last_batch_at else "first file"
        reasons.append(
            f"{(now - since) / timedelta(days=1):.1f} days since the {what}, "
            f"max_days_between_runs is {config.max_days_between_runs:g}"
        )
    return RetrainDecision(enough or is_due, tuple(reasons))
