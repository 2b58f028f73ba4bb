"""A judged benchmark's questions with its baseline's answers, joined from the projects' files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pvar.digest import prompt_id
from pvar.errors import InputError
from pvar.evaluation.alpaca_eval_files import generator_of, read_evaluation_set, read_outputs
from pvar.evaluation.arena_hard_files import (
    ArenaHardAnswer,
    ArenaHardQuestion,
    read_answers,
    read_question_texts,
)
from pvar.evaluation.file_rows import RowFile
from pvar.evaluation.style import Version
from pvar.records import Message, Prompt

CATEGORIES: Mapping[Version, frozenset[str]] = {
    "v0.1": frozenset({"arena-hard-v0.1"}),
    "v2.0": frozenset({"hard_prompt", "creative_writing", "arena-hard-v0.1"}),
}
CREATIVE_WRITING = "creative_writing"
"""v2.0's category whose judge does not write an own answer first."""


class BenchmarkQuestion(NamedTuple):
    """A question, and the baseline's answer to it."""

    prompt_id: str
    question_id: str
    """`uid` or `question_id`; AlpacaEval: the index."""
    number: int
    """Position in the evaluation set, or AlpacaEval's index: the key of its difficulty table."""
    category: str | None
    """Arena-Hard's category, AlpacaEval's data set."""
    baseline: str
    """Name of the baseline model."""
    baseline_answer: str
    baseline_tokens: int | None
    """Published `token_len` of the baseline's answer; None if the file has none."""


class BenchmarkQuestions(NamedTuple):
    """The graded questions as prompts, in the order of the file, and what is not graded."""

    prompts: list[Prompt]
    questions: list[BenchmarkQuestion]
    num_not_wanted: int
    """Questions of categories that were not asked for."""
    ungraded: Mapping[str, int]
    """Category without a baseline's answers → number of its questions."""


def join_alpaca_eval(questions: RowFile, baseline: RowFile) -> BenchmarkQuestions:
    """Join the evaluation set with the baseline's outputs.

    Raises InputError if the baseline lacks an instruction, or if an index occurs twice.
    """
    rows, outputs = read_evaluation_set(questions), read_outputs(baseline)
    _refuse_empty(rows, questions.name)
    name = generator_of(outputs, baseline.name)
    if name is None:
        raise InputError(
            f"{baseline.name}: there is no column generator, the name of the baseline model; add it"
        )
    if len({row.number for row in rows}) < len(rows):
        raise InputError(
            f"{questions.name}: the column index has the same number twice; it must number the "
            "instructions, because the difficulty table is looked up by it"
        )
    missing = [row.instruction for row in rows if row.instruction not in outputs]
    _refuse_incomplete(missing, len(rows), questions.name, baseline.name)
    prompts = [_prompt(row.instruction, "alpaca_eval") for row in rows]
    joined = [
        BenchmarkQuestion(
            prompt_id=prompt.prompt_id,
            question_id=str(row.number),
            number=row.number,
            category=row.dataset,
            baseline=name,
            baseline_answer=outputs[row.instruction].text,
            baseline_tokens=None,
        )
        for row, prompt in zip(rows, prompts, strict=True)
    ]
    return BenchmarkQuestions(prompts, joined, 0, {})


def join_arena_hard(
    questions: RowFile,
    baselines: Sequence[RowFile],
    version: Version,
    categories: Sequence[str],
) -> BenchmarkQuestions:
    """Join the questions of these categories (all if empty) with the baselines' answers.

    A category to whose questions no baseline has an answer is not graded. Raises InputError if a
    graded category's baseline lacks questions, for an unknown category, for questions of another
    version, and if two baselines answer the same question.
    """
    rows = read_question_texts(questions)
    _refuse_empty(rows, questions.name)
    _refuse_other_version(rows, version, questions.name)
    known = {row.category for row in rows}
    if unknown := [category for category in categories if category not in known]:
        raise InputError(
            f"{questions.name}: there is no category {unknown[0]!r}; it has "
            f"{', '.join(sorted(filter(None, known)))}"
        )
    answers = _merged(baselines)
    wanted = [row for row in rows if not categories or row.category in categories]
    graded = {row.category for row in wanted if row.question_id in answers}
    left = [row for row in wanted if row.category in graded]
    names = ", ".join(baseline.name for baseline in baselines)
    if not left:
        raise InputError(
            f"{names}: there is no answer to any of {len(wanted)} wanted questions of "
            f"{questions.name}; give answers of the same version of Arena-Hard"
        )
    joined = join_by_id(left, answers, source="arena_hard", names=(questions.name, names))
    ungraded = Counter(row.category or "none" for row in wanted if row.category not in graded)
    return joined._replace(num_not_wanted=len(rows) - len(wanted), ungraded=dict(ungraded))


def join_by_id(
    rows: Sequence[ArenaHardQuestion],
    answers: Mapping[str, ArenaHardAnswer],
    *,
    source: str,
    names: tuple[str, str],
) -> BenchmarkQuestions:
    """Join questions with the baseline's answers by the questions' ids.

    `names` are the names of both files in messages. Raises InputError if answers are missing, and
    if two questions have the same text.
    """
    missing = [row.text for row in rows if row.question_id not in answers]
    _refuse_incomplete(missing, len(rows), *names)
    prompts = [_prompt(row.text, source) for row in rows]
    _refuse_equal_texts(prompts, rows, names[0])
    joined = [
        BenchmarkQuestion(
            prompt_id=prompt.prompt_id,
            question_id=row.question_id,
            number=number,
            category=row.category,
            baseline=answers[row.question_id].model,
            baseline_answer=answers[row.question_id].text,
            baseline_tokens=answers[row.question_id].num_tokens,
        )
        for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]
    return BenchmarkQuestions(prompts, joined, 0, {})


def _merged(files: Sequence[RowFile]) -> dict[str, ArenaHardAnswer]:
    merged: dict[str, ArenaHardAnswer] = {}
    for file in files:
        answers = read_answers(file)
        if twice := sorted(merged.keys() & answers.keys()):
            raise InputError(
                f"{file.name}: question {twice[0]} is also answered by the baseline "
                f"{merged[twice[0]].model}; give one baseline per question"
            )
        merged |= answers
    return merged


def _refuse_empty(rows: Sequence[object], name: str) -> None:
    if not rows:
        raise InputError(f"{name}: there are no questions; give the benchmark's evaluation set")


def _refuse_other_version(rows: Sequence[ArenaHardQuestion], version: Version, name: str) -> None:
    found = {row.category for row in rows if row.category is not None}
    if others := sorted(found - CATEGORIES[version]):
        raise InputError(
            f"{name}: category {others[0]!r} does not belong to Arena-Hard {version}, which has "
            f"{', '.join(sorted(CATEGORIES[version]))}; set the benchmark's version, or give its "
            "question file"
        )


def _refuse_incomplete(missing: Sequence[str], num_all: int, questions: str, answers: str) -> None:
    if missing:
        raise InputError(
            f"{answers}: there is no baseline's answer to {len(missing)} of {num_all} questions of "
            f"{questions}, such as {missing[0][:60]!r}; give files of the same version"
        )


def _refuse_equal_texts(
    prompts: Sequence[Prompt], rows: Sequence[ArenaHardQuestion], name: str
) -> None:
    first: dict[str, str] = {}
    for prompt, row in zip(prompts, rows, strict=True):
        if prompt.prompt_id in first:
            raise InputError(
                f"{name}: questions {first[prompt.prompt_id]} and {row.question_id} have the same "
                "text; keep one of them"
            )
        first[prompt.prompt_id] = row.question_id


def _prompt(text: str, source: str) -> Prompt:
    messages = (Message("user", text),)
    return Prompt(prompt_id(messages), messages, "eval", source)
