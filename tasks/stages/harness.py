"""Stage harness: a model answers the tasks of lm-evaluation-harness.

One shard per configured name (a task, or a group or tag of tasks), so that a crash loses at most
the name in progress. The tables have one row per question and metric, from which two models are
compared (`pvar/evaluation/lm_eval_change.py`), and the harness's own aggregates.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pvar.artifacts import ShardSpec, Summary, plan_shards
from pvar.benchmark_config import LmEvalSettings
from pvar.lm_eval_records import LmEvalAggregate, LmEvalSample
from pvar.number_format import NumberFormat
from pvar.references import ModelReference, Pinned
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table

SAMPLES = "samples.parquet"
AGGREGATES = "aggregates.parquet"


class HarnessSpec(BaseModel):
    """The settings that determine the results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: ModelReference
    settings: LmEvalSettings
    allow_code_execution: bool = Field(exclude=True)
    """Without it, tasks that execute code fail."""


def _plan(job: Job[HarnessSpec]) -> tuple[ShardSpec, ...]:
    return plan_shards(len(job.spec.settings.tasks), 1)


def _number_format(job: Job[HarnessSpec]) -> NumberFormat | None:
    if job.spec.settings.backend == "fake":
        return None
    return job.ports.number_format(job.spec.settings.dtype, learns=False)


@contextmanager
def _open_worker(job: Job[HarnessSpec]) -> Iterator[Work]:
    spec = job.spec
    folder = None if spec.settings.backend == "fake" else job.ports.model_folder(spec.policy)
    harness = job.ports.harness(
        spec.settings.model_copy(update={"dtype": job.number_format or "auto"}),
        Pinned.parse(spec.policy).digest,
        folder,
        job.runtime,
        allow_code_execution=spec.allow_code_execution,
        scratch=job.scratch,
    )

    def run(shard: ShardSpec, folder: Path) -> RowCounts:
        (name,) = spec.settings.tasks[shard.start : shard.stop]
        job.progress.say(name)
        result = harness.run(name)
        write_table(folder / SAMPLES, result.samples, LmEvalSample)
        write_table(folder / AGGREGATES, result.aggregates, LmEvalAggregate)
        scored = {(row.task, row.doc_id) for row in result.samples if row.value is not None}
        undefined = result.num_questions - len(scored)
        return RowCounts(
            rows_in=result.num_questions,
            rows_out=len(scored),
            rejected={"no_value": undefined} if undefined else {},
        )

    try:
        yield run
    finally:
        harness.close()


def _summarise(_: Job[HarnessSpec], artifact: Artifact) -> Summary:
    aggregates = artifact.rows(AGGREGATES, LmEvalAggregate)
    versions = sorted({row.harness_version for row in aggregates})
    return {
        "num_questions": artifact.manifest.row_counts.rows_in,
        "harness_version": ", ".join(versions),
        **{
            figure_name(f"{row.metric}_{row.filter}_{row.task}"): row.value
            for row in aggregates
            if row.task == row.name
        },
    }


def figure_name(text: str) -> str:
    """The text as a name that MLflow accepts for a metric (`pass@1` has an invalid sign)."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", text)


HARNESS = Stage(
    name="harness",
    description="Measure a model's ability with lm-evaluation-harness.",
    version=1,
    image="train",
    wants_gpu=True,
    plan=_plan,
    open_worker=_open_worker,
    summarise=_summarise,
    unit="tasks",
    number_format=_number_format,
)
