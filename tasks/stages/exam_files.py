"""The files of judged benchmarks: questions with the baseline's answers, and a model's answers.

One class of settings and one case per kind of benchmark.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, assert_never

from pydantic import BaseModel, ConfigDict

from pvar.evaluation.alpaca_eval_files import generator_of, read_outputs
from pvar.evaluation.arena_hard_files import ArenaHardAnswer, read_answers
from pvar.evaluation.benchmark_questions import (
    BenchmarkQuestions,
    join_alpaca_eval,
    join_arena_hard,
)
from pvar.evaluation.file_rows import RowFile
from pvar.evaluation.style import Version
from pvar.ports import Ports
from pvar.references import DataReference, Pinned


class AlpacaEvalQuestions(BaseModel):
    """AlpacaEval's evaluation set and the outputs of its baseline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["alpaca_eval"]
    questions: DataReference
    baseline_outputs: DataReference


class ArenaHardQuestions(BaseModel):
    """Arena-Hard's questions and the answers of its baselines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["arena_hard"]
    version: Version
    questions: DataReference
    baseline_answers: tuple[DataReference, ...]
    categories: tuple[str, ...]


JudgedQuestions = AlpacaEvalQuestions | ArenaHardQuestions

JudgedKind = Literal["alpaca_eval", "arena_hard"]


class GivenAnswer(NamedTuple):
    """An answer of a file."""

    text: str
    num_tokens: int | None
    """Published `token_len`; None if the file has none."""


class GivenAnswers(NamedTuple):
    """The answers of a file."""

    model: str | None
    """Name of the model; None if the file does not name it."""
    keyed_by: Literal["question_id", "text"]
    by_key: Mapping[str, GivenAnswer]
    """By the question's id, or by its text."""


def row_file(ports: Ports, reference: str) -> RowFile:
    """The rows of a pinned data reference."""
    return RowFile(Pinned.parse(reference).location, ports.source_rows(reference))


def join_questions(benchmark: JudgedQuestions, ports: Ports) -> BenchmarkQuestions:
    """Join the benchmark's questions with the baseline's answers; InputError if they differ."""
    questions = row_file(ports, benchmark.questions)
    match benchmark:
        case AlpacaEvalQuestions():
            return join_alpaca_eval(questions, row_file(ports, benchmark.baseline_outputs))
        case ArenaHardQuestions():
            baselines = [row_file(ports, each) for each in benchmark.baseline_answers]
            return join_arena_hard(questions, baselines, benchmark.version, benchmark.categories)
        case unknown:
            assert_never(unknown)


def read_given(kind: JudgedKind, file: RowFile) -> GivenAnswers:
    """Read a model's answers in the benchmark's own form."""
    match kind:
        case "alpaca_eval":
            outputs = read_outputs(file)
            by_text = {key: GivenAnswer(each.text, None) for key, each in outputs.items()}
            return GivenAnswers(generator_of(outputs, file.name), "text", by_text)
        case "arena_hard":
            return _by_id(read_answers(file))
        case unknown:
            assert_never(unknown)


def _by_id(answers: Mapping[str, ArenaHardAnswer]) -> GivenAnswers:
    return GivenAnswers(
        model=next((each.model for each in answers.values()), None),
        keyed_by="question_id",
        by_key={key: GivenAnswer(each.text, each.num_tokens) for key, each in answers.items()},
    )
