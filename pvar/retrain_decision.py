"""When to retrain: the configuration, the records of used files, and the decision.

New files are collected into batches. A batch is the data of one pipeline run, and its record lists
its files. The records of all batches together are the watermark: a file is new if none lists it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from pvar.config import PipelineConfig
from pvar.config_model import ConfigModel
from pvar.fresh_pairs import FRESH
from pvar.label_audit_config import HoldConfig
from pvar.references import CHAMPION
from pvar.replay import ReplayConfig
from pvar.row_counts import RowCounts


class RetrainConfig(ConfigModel):
    """Which files are watched, when they start a run, and what that run is."""

    incoming: str = Field(default="incoming", pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$")
    """Prefix in the store for new JSONL and Parquet files of preferences or prompts. Add each file
    atomically (an S3 put, or a rename into the folder)."""
    min_new_pairs: int = Field(default=500, ge=1)
    """Start a run when at least this many new rows wait. Prompts and preferences count alike; rows
    with a prompt that an earlier batch has do not count."""
    max_days_between_runs: float | None = Field(default=7, gt=0)
    """Start a run with fewer new rows this many days after the last run. `null` always waits for
    min_new_pairs."""
    max_attempts: int = Field(default=3, ge=1)
    """Maximum failed runs of one batch. The batch is then set aside for a person to inspect."""
    exam: int = Field(default=1, ge=1)
    """Number of the exam on which all versions are measured. The first successful run with a number
    freezes the prompts that its batch holds out, and later runs use them. A new number starts a new
    exam, whose results are not comparable with the earlier ones. No effect with
    `pipeline.evaluate.prompts`."""
    min_exam_prompts: int = Field(default=50, ge=1)
    """Minimum number of prompts to judge in an exam that is frozen. The run of a batch that holds
    out fewer is measured on these alone, and the exam is frozen by a later batch."""
    reserve_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of an exam that is frozen (such as 0.3) that is kept apart as reserve exam, which only
    audits ask. `min_exam_prompts` is required of both parts. `null`: none. No effect on an exam
    that is frozen already, and with `pipeline.evaluate.reserve_prompts`."""
    audit_every: int | None = Field(default=None, ge=1)
    """Compare the champion with the first model on the reserve exam after this many promotions, as
    `pvar audit` does. `null`: only `pvar audit` does."""
    pairs: Literal["auto", "pipeline"] = "auto"
    """`auto` uses the labels that arrive: pair.own_labels is true for every batch. `pipeline` makes
    pairs as the pipeline's configuration says."""
    replay: ReplayConfig | None = None
    """Rows of earlier batches that a new batch is trained with again. `null`: none, the model sees
    each row in one batch."""
    hold: HoldConfig | None = HoldConfig()
    """When a batch waits for a person because models agree less with its labels than with earlier
    ones. No effect without `pipeline.label_audit`. `null` measures and holds no batch."""
    fresh_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the prompts on the fresh side (such as 0.1), by a hash of the prompt's id. Nothing
    is ever trained on them. The labelled ones of each batch are an exam of their own that the
    trained model, the champion and the first model take (benchmark `fresh`). `null`: none."""
    pipeline: PipelineConfig = PipelineConfig()
    """The pipeline to run. The batch replaces its `ingest.source`."""

    @model_validator(mode="after")
    def _batches_are_sampled(self) -> Self:
        if self.pipeline.sample.engine == "dataset":
            raise ValueError(
                "pipeline.sample.engine is dataset, but a batch holds the prompts and preferences "
                "of new files, not lists of answers; use another engine, or run the pipeline on "
                "the file itself"
            )
        return self

    @model_validator(mode="after")
    def _files_have_a_form_that_is_recognised(self) -> Self:
        ingest = self.pipeline.ingest
        if ingest.format != "auto" or ingest.columns.given():
            raise ValueError(
                "pipeline.ingest.format and pipeline.ingest.columns are for ingest.source, but the "
                "rows of incoming files must have a form that is recognised (docs/data.md); write "
                "the files with its columns, and leave out both keys"
            )
        return self

    @model_validator(mode="after")
    def _name_of_fresh_exam_is_free(self) -> Self:
        taken = any(benchmark.name == FRESH for benchmark in self.pipeline.benchmarks)
        if self.fresh_share is not None and taken:
            raise ValueError(
                f"fresh_share is {self.fresh_share:g}, whose exam is a benchmark of the name "
                f"{FRESH}, and pipeline.benchmarks has one of that name; give it another `name`"
            )
        return self


def fixed_opponent(config: RetrainConfig) -> str | None:
    """What is wrong with a fixed opponent that decides about promotions; None if there is none.

    A version replaces only the champion that it was compared with, so that with a fixed opponent
    nothing is promoted after the first promotion.
    """
    evaluate, promote = config.pipeline.evaluate, config.pipeline.promote
    champion = (CHAMPION, f"models:/{promote.model_name}@{CHAMPION}")
    if evaluate.opponent in champion or promote.mode == "never":
        return None
    return (
        f"evaluate.opponent is {evaluate.opponent}, but a version replaces only the champion that "
        "it was compared with, so after the first promotion every batch that passes the gate "
        "fails; set evaluate.opponent=champion (with evaluate.against_first=true each version is "
        "compared with the first model, too), or promote.mode=never"
    )


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileVersion(NamedTuple):
    """A file as the store lists it."""

    key: str
    num_bytes: int
    modified: datetime
    store_version: str | None

    @property
    def without_store_version(self) -> "FileVersion":
        """As records name it that have no identifier of the content."""
        return self._replace(store_version=None)


class IncomingFile(_Record):
    """A file under the incoming prefix, as it was when it was read."""

    key: str
    num_bytes: int
    modified: AwareDatetime
    sha256: str
    """Digest of the content. The same content under another key is not new."""
    row_counts: RowCounts
    store_version: str | None = None
    """The store's identifier of the content; None in records of pvar before it was kept."""
    num_not_new: int = Field(default=0, ge=0)
    """Good rows with a prompt that an earlier batch has, or that is withdrawn. 0 in records of pvar
    before it was counted."""

    @property
    def num_new(self) -> int:
        """Good rows that count as new."""
        return self.row_counts.rows_out - self.num_not_new

    @property
    def version(self) -> "FileVersion":
        """What the listing says about it, by which a known file is recognised unread."""
        return FileVersion(self.key, self.num_bytes, self.modified, self.store_version)


class Replayed(_Record):
    """Rows of an earlier batch in the data of a later one."""

    batch: int
    num_rows: int


class Batch(_Record):
    """The files of one pipeline run. Writing its record, once, marks them as used."""

    number: int = Field(ge=1)
    created_at: AwareDatetime
    data: str
    """Key of the object that holds the rows of all files."""
    files: tuple[IncomingFile, ...]
    duplicates: tuple[IncomingFile, ...]
    """Files whose content is that of another file, of this batch or an earlier one."""
    reasons: tuple[str, ...]
    """Why the run was started."""
    row_counts: RowCounts | None = None
    """Good rows of all files in, rows of the data out. None in records of pvar before it was kept:
    all good rows are in the data."""
    num_labelled: int | None = None
    """New rows that say which of two answers is preferred; None in such records."""
    replayed: tuple[Replayed, ...] = ()
    """Rows of earlier batches in the data, after its own."""
    fresh: str | None = None
    """Key of the object with labelled pairs that are not trained on; None if there are none."""

    @property
    def num_pairs(self) -> int:
        """New rows, prompts and preferences alike: the first ones of the data."""
        if self.row_counts is not None:
            return self.row_counts.rows_out
        return sum(file.row_counts.rows_out for file in self.files)


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
    """Start a run if there are enough new rows, or enough time has passed since the last batch
    (before the first batch: since the oldest file). Without new rows, no run starts."""
    num_pairs = sum(file.num_new for file in waiting)
    num_not_new = sum(file.num_not_new for file in waiting)
    seen = f"{num_not_new} rows with prompts of earlier batches, or withdrawn ones, do not count"
    if num_pairs == 0:
        return RetrainDecision(False, ("no new data", *([seen] if num_not_new else [])))
    enough = num_pairs >= config.min_new_pairs
    reasons = [
        f"{num_pairs} new pairs in {len(waiting)} files, min_new_pairs is {config.min_new_pairs}",
        *([seen] if num_not_new else []),
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
