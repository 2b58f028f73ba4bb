"""Stage questions: freeze a benchmark's questions and its baseline's answers, or an exam's prompts.

For the label audit it freezes the labelled pairs of a run's source.

The artifact has the table PROMPTS of stage ingest, so that stage sample answers the questions.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.errors import InputError
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.file_rows import RowFile
from pvar.exam import exam_digest, num_judged, read_exam
from pvar.labelled_pairs import HeldOutPairs, read_held_out_pairs
from pvar.ports import Ports
from pvar.records import Prompt
from pvar.references import DataReference, Pinned
from pvar.row_counts import RowCounts
from pvar.source_columns import SourceColumns, rows_in_form
from pvar.source_forms import SourceFormat
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.audited_labels import ALL_LABELS, write_labels
from tasks.stages.exam_files import JudgedQuestions, join_questions, row_file
from tasks.stages.ingest import PROMPTS

BASELINE = "questions.parquet"


class LabelledPairsQuestions(BaseModel):
    """Labelled pairs that are not trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["label_agreement"]
    pairs: DataReference


class ExamQuestions(BaseModel):
    """The prompts of `evaluate.prompts`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["exam"]
    prompts: tuple[DataReference, ...]
    source_field: str | None = None
    """Field of a row with the name of its source; without a text there, it is the file's name."""


class LabelQuestions(BaseModel):
    """The labelled pairs of a run's source, of the label audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["labels"]
    source: DataReference
    source_field: str | None
    """Field of a row with the name of its source; without a text there, it is `ALL_LABELS`."""
    annotator_field: str | None
    num_rows: int | None
    """Only the first rows; None for all."""
    format: SourceFormat = "auto"
    columns: SourceColumns = SourceColumns()


class QuestionsSpec(BaseModel):
    """The settings that determine the questions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: JudgedQuestions | LabelledPairsQuestions | ExamQuestions | LabelQuestions
    withdrawn: tuple[str, ...] = ()
    """Ids of prompts that are left out of labels, labelled pairs and exams, sorted."""


@contextmanager
def _open_worker(job: Job[QuestionsSpec]) -> Iterator[Work]:
    def freeze(_: ShardSpec, folder: Path) -> RowCounts:
        benchmark, withdrawn = job.spec.benchmark, frozenset(job.spec.withdrawn)
        if isinstance(benchmark, LabelledPairsQuestions):
            return _freeze_pairs(row_file(job.ports, benchmark.pairs), withdrawn, folder)
        if isinstance(benchmark, ExamQuestions):
            files = [row_file(job.ports, each) for each in benchmark.prompts]
            return _freeze_exam(files, benchmark.source_field, withdrawn, folder)
        if isinstance(benchmark, LabelQuestions):
            return write_labels(_read_labels(benchmark, withdrawn, job.ports), folder)
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


def _read_labels(labels: LabelQuestions, withdrawn: Collection[str], ports: Ports) -> HeldOutPairs:
    rows = rows_in_form(
        ports.source_rows(labels.source),
        labels.format,
        labels.columns,
        Pinned.parse(labels.source).location,
    )
    return read_held_out_pairs(
        islice(rows, labels.num_rows),
        ALL_LABELS,
        labels.source_field,
        labels.annotator_field,
        withdrawn=withdrawn,
    )


def _freeze_pairs(file: RowFile, withdrawn: Collection[str], folder: Path) -> RowCounts:
    pairs = read_held_out_pairs(file.rows, _short(file), withdrawn=withdrawn)
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


def _freeze_exam(
    files: Sequence[RowFile], source_field: str | None, withdrawn: Collection[str], folder: Path
) -> RowCounts:
    exam = read_exam(((_short(file), file.rows) for file in files), source_field, withdrawn)
    if not num_judged(exam.prompts):
        raise InputError(
            f"{', '.join(file.name for file in files)}: no row is a prompt to judge "
            f"({len(exam.prompts)} ability questions, rejected: {exam.rejected}); "
            "evaluate.prompts needs at least one row with a prompt and without `answer`"
        )
    write_table(folder / PROMPTS, exam.prompts, Prompt)
    write_table(folder / BASELINE, [], BenchmarkQuestion)
    num_out = len(exam.prompts)
    return RowCounts(
        rows_in=num_out + sum(exam.rejected.values()), rows_out=num_out, rejected=exam.rejected
    )


def _short(file: RowFile) -> str:
    return file.name.rpartition("/")[2]


def _summarise(job: Job[QuestionsSpec], artifact: Artifact) -> Summary:
    if isinstance(job.spec.benchmark, LabelQuestions):
        return {"num_labels": artifact.manifest.row_counts.rows_out}
    if isinstance(job.spec.benchmark, ExamQuestions):
        prompts = artifact.rows(PROMPTS, Prompt)
        return {
            "exam": exam_digest(prompts),
            "num_eval_prompts": num_judged(prompts),
            "num_ability_questions": len(prompts) - num_judged(prompts),
        }
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
    description="Freeze a benchmark's questions and its baseline's answers, or an exam's prompts.",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
