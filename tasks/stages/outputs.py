"""Stage outputs: take a model's answers to a benchmark from a file that was made elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.digest import response_id
from pvar.errors import ColumnError, InputError
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.file_rows import RowFile
from pvar.records import Prompt, Response
from pvar.references import DataReference
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.exam_files import GivenAnswer, GivenAnswers, JudgedKind, read_given, row_file
from tasks.stages.exam_questions import BASELINE
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES

ABOUT = "about.json"


class OutputsRecord(BaseModel):
    """What the file says about its answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str
    """Name of the model that made them."""
    has_token_counts: bool
    """Whether every answer has its published `token_len`; otherwise words are counted."""


class OutputsSpec(BaseModel):
    """The settings that determine the answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: JudgedKind
    outputs: DataReference
    name: str
    """Name of the model, if the file does not name it."""


def _read(file: RowFile, kind: JudgedKind) -> GivenAnswers:
    try:
        return read_given(kind, file)
    except ColumnError as error:
        raise InputError(
            f"{error}; if they are answers to another benchmark than {kind}, choose it with "
            "--benchmark NAME (benchmark_models.benchmarks)"
        ) from error


@contextmanager
def _open_worker(job: Job[OutputsSpec]) -> Iterator[Work]:
    def take(_: ShardSpec, folder: Path) -> RowCounts:
        questions = job.inputs["prompts"]
        prompts = {each.prompt_id: each for each in questions.rows(PROMPTS, Prompt)}
        rows = questions.rows(BASELINE, BenchmarkQuestion)
        file = row_file(job.ports, job.spec.outputs)
        answers = _read(file, job.spec.kind)
        taken = [
            _response(row, given)
            for row in rows
            if (given := _answer(row, prompts, answers)) is not None
        ]
        if not taken:
            raise InputError(
                f"{job.keys.root}: {file.name} has {len(answers.by_key)} answers, but none to "
                f"any of {len(rows)} questions; give answers to the same benchmark and version"
            )
        write_table(folder / RESPONSES, taken, Response)
        about = OutputsRecord(
            generator=answers.model or job.spec.name,
            has_token_counts=all(each.num_tokens is not None for each in answers.by_key.values()),
        )
        (folder / ABOUT).write_text(about.model_dump_json(), encoding="utf-8")
        missing = len(rows) - len(taken)
        return RowCounts(
            rows_in=len(rows),
            rows_out=len(taken),
            rejected={"not_answered": missing} if missing else {},
        )

    yield take


def _answer(
    row: BenchmarkQuestion, prompts: Mapping[str, Prompt], answers: GivenAnswers
) -> GivenAnswer | None:
    text = prompts[row.prompt_id].messages[0].content
    return answers.by_key.get(row.question_id if answers.keyed_by == "question_id" else text)


def _response(row: BenchmarkQuestion, given: GivenAnswer) -> Response:
    return Response(
        prompt_id=row.prompt_id,
        response_id=response_id(row.prompt_id, 0, given.text),
        sample_index=0,
        text=given.text,
        num_tokens=len(given.text.split()) if given.num_tokens is None else given.num_tokens,
        finish_reason="stop",
    )


def read_about(artifact: Artifact) -> OutputsRecord:
    """What the file of a complete artifact says about its answers."""
    (path,) = artifact.paths(ABOUT)
    return OutputsRecord.model_validate_json(path.read_text(encoding="utf-8"))


def _summarise(_: Job[OutputsSpec], artifact: Artifact) -> Summary:
    about = read_about(artifact)
    return {
        "generator": about.generator,
        "has_token_counts": about.has_token_counts,
        "num_responses": artifact.manifest.row_counts.rows_out,
    }


OUTPUTS = Stage(
    name="outputs",
    description="Take a model's answers to a benchmark from a file.",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
