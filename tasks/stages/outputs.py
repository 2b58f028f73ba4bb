"""Stage outputs: take a model's answers to a benchmark from a file that was made elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.digest import response_id
from pvar.errors import InputError
from pvar.evaluation.alpaca_eval_files import generator_of, read_outputs
from pvar.evaluation.arena_hard_files import read_answers
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.file_rows import RowFile
from pvar.records import Prompt, Response, Row
from pvar.references import DataReference
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.exam_questions import BASELINE, row_file
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

    kind: Literal["alpaca_eval", "arena_hard"]
    outputs: DataReference
    name: str
    """Name of the model, if the file does not name it."""


class _Given(NamedTuple):
    """An answer of the file."""

    text: str
    num_tokens: int | None


class _Answers(NamedTuple):
    generator: str
    by_question: Mapping[str, _Given]
    """By instruction (AlpacaEval) or question id (Arena-Hard)."""


_COLUMNS = {"alpaca_eval": ("instruction",), "arena_hard": ("uid", "question_id")}
"""Columns of which a row of answers has one at least."""


def _refuse_other_benchmark(file: RowFile, spec: OutputsSpec) -> RowFile:
    """The file, if its first row can be an answer to this benchmark."""
    rows = iter(file.rows)
    first = next(rows, None)
    wanted = _COLUMNS[spec.kind]
    if isinstance(first, Row) and not any(column in first.fields for column in wanted):
        raise InputError(
            f"{file.name} has no column {' or '.join(wanted)} and so no answers to {spec.kind}; "
            f"the columns are {', '.join(first.fields)}; if they are answers to another benchmark, "
            "choose it with --benchmark NAME (benchmark_models.benchmarks)"
        )
    return RowFile(file.name, rows if first is None else chain([first], rows))


def _read(file: RowFile, spec: OutputsSpec) -> _Answers:
    file = _refuse_other_benchmark(file, spec)
    match spec.kind:
        case "alpaca_eval":
            outputs = read_outputs(file)
            generator = generator_of(outputs, file.name) or spec.name
            by_question = {key: _Given(each.text, None) for key, each in outputs.items()}
        case "arena_hard":
            answers = read_answers(file)
            generator = next((each.model for each in answers.values()), spec.name)
            by_question = {key: _Given(each.text, each.num_tokens) for key, each in answers.items()}
    return _Answers(generator, by_question)


@contextmanager
def _open_worker(job: Job[OutputsSpec]) -> Iterator[Work]:
    def take(_: ShardSpec, folder: Path) -> RowCounts:
        questions = job.inputs["prompts"]
        prompts = {each.prompt_id: each for each in questions.rows(PROMPTS, Prompt)}
        rows = questions.rows(BASELINE, BenchmarkQuestion)
        file = row_file(job.ports, job.spec.outputs)
        answers = _read(file, job.spec)
        taken = [
            _response(row, answers.by_question[key])
            for row in rows
            if (key := _key(row, prompts, job.spec)) in answers.by_question
        ]
        if not taken:
            raise InputError(
                f"{job.keys.root}: {file.name} has {len(answers.by_question)} answers, but none to "
                f"any of {len(rows)} questions; give answers to the same benchmark and version"
            )
        write_table(folder / RESPONSES, taken, Response)
        about = OutputsRecord(
            generator=answers.generator,
            has_token_counts=all(
                each.num_tokens is not None for each in answers.by_question.values()
            ),
        )
        (folder / ABOUT).write_text(about.model_dump_json(), encoding="utf-8")
        missing = len(rows) - len(taken)
        return RowCounts(
            rows_in=len(rows),
            rows_out=len(taken),
            rejected={"not_answered": missing} if missing else {},
        )

    yield take


def _key(row: BenchmarkQuestion, prompts: Mapping[str, Prompt], spec: OutputsSpec) -> str:
    if spec.kind == "arena_hard":
        return row.question_id
    return prompts[row.prompt_id].messages[0].content


def _response(row: BenchmarkQuestion, given: _Given) -> Response:
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
