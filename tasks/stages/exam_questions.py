"""Stage questions: freeze a benchmark's questions and its baseline's answers.

The artifact has the table PROMPTS of stage ingest, so that stage sample answers the questions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.errors import InputError
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.file_rows import RowFile
from pvar.labelled_pairs import read_held_out_pairs
from pvar.records import Prompt
from pvar.references import DataReference
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.exam_files import JudgedQuestions, join_questions, row_file
from tasks.stages.ingest import PROMPTS

BASELINE = "questions.parquet"


class LabelledPairsQuestions(BaseModel):
    """Labelled pairs that are not trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["label_agreement"]
    pairs: DataReference


class QuestionsSpec(BaseModel):
    """The settings that determine the questions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: JudgedQuestions | LabelledPairsQuestions


@contextmanager
def _open_worker(job: Job[QuestionsSpec]) -> Iterator[Work]:
    def freeze(_: ShardSpec, folder: Path) -> RowCounts:
        benchmark = job.spec.benchmark
        if isinstance(benchmark, LabelledPairsQuestions):
            return _freeze_pairs(row_file(job.ports, benchmark.pairs), folder)
        joined = join_questions(benchmark, job.ports)
        write_table(folder / PROMPTS, joined.prompts, Prompt)
        write_table(folder / BASELINE, joined.questions, BenchmarkQuestion)
        rejected = {f"no_baseline_{category}": n for category, n in joined.ungraded.items()}
        if joined.num_not_wanted:
            rejected["category_not_wanted"] = joined.num_not_wanted
        num_out = len(joined.prompts)
        return RowCounts(
            rows_in=num_out + sum(rejected.values()), rows_out=num_out, rejected=rejected
        )

    yield freeze


def _freeze_pairs(file: RowFile, folder: Path) -> RowCounts:
    pairs = read_held_out_pairs(file.rows, file.name.rpartition("/")[2])
    if not pairs.prompts:
        raise InputError(
            f"{file.name}: no row is a labelled pair ({pairs.rejected}); give rows with prompt, "
            "chosen and rejected"
        )
    write_table(folder / PROMPTS, pairs.prompts, Prompt)
    write_table(folder / BASELINE, [], BenchmarkQuestion)
    num_out = len(pairs.prompts)
    return RowCounts(
        rows_in=num_out + sum(pairs.rejected.values()), rows_out=num_out, rejected=pairs.rejected
    )


def _summarise(_: Job[QuestionsSpec], artifact: Artifact) -> Summary:
    rows = artifact.rows(BASELINE, BenchmarkQuestion)
    rejected = artifact.manifest.row_counts.rejected
    ungraded = [
        rule.removeprefix("no_baseline_") for rule in rejected if rule.startswith("no_baseline_")
    ]
    return {
        "num_questions": artifact.manifest.row_counts.rows_out,
        "baseline": ", ".join(sorted({row.baseline for row in rows})) or None,
        "categories": ", ".join(sorted({row.category for row in rows if row.category})) or None,
        "ungraded_categories": ", ".join(ungraded) or None,
    }


QUESTIONS = Stage(
    name="questions",
    description="Freeze a benchmark's questions and its baseline's answers.",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
