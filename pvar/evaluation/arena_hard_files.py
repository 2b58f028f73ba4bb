"""Arena-Hard's own files: questions, answers of a model, and judgments.

A row names its question by `question_id` (v0.1) or `uid` (v2.0). An answer is in `messages`, or in
v0.1's `choices[0].turns`, and its model is `model`, or v0.1's `model_id`. Style counts are in
`metadata`, or in v0.1's `conv_metadata`. The text of a question is `prompt`, or v0.1's
`turns[0].content`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pvar.errors import ColumnError, InputError
from pvar.evaluation.arena_hard import JudgedQuestion
from pvar.evaluation.arena_hard_style import StyleKey
from pvar.evaluation.file_rows import RowFile, optional_text, rows_with, text_of
from pvar.evaluation.style import StyleCounts, count_style
from pvar.records import Row

BASELINE_V01 = "gpt-4-0314"
"""The one baseline of v0.1, whose files of judgments do not name it."""


class ArenaHardQuestion(NamedTuple):
    """A question of the benchmark."""

    question_id: str
    text: str
    category: str | None


class ArenaHardAnswer(NamedTuple):
    """A model's answer to a question."""

    model: str
    text: str
    num_tokens: int | None
    """`token_len`, the length in tokens of gpt-4o; None if the row has none."""


def read_question_texts(file: RowFile) -> list[ArenaHardQuestion]:
    """Read the questions with their texts. InputError for a repeated or an unreadable question."""
    questions: dict[str, ArenaHardQuestion] = {}
    for row in rows_with(file, ()):
        question_id = _question_id(file, row)
        if question_id in questions:
            raise InputError(
                f"{file.name}, row {row.number}: question {question_id} occurs a second time; keep "
                "one row per question"
            )
        category = optional_text(row, "category")
        questions[question_id] = ArenaHardQuestion(question_id, _prompt(file, row), category)
    return list(questions.values())


def read_answers(file: RowFile) -> dict[str, ArenaHardAnswer]:
    """Read one model's answers by question id. InputError for several models, or two answers."""
    answers: dict[str, ArenaHardAnswer] = {}
    for row in rows_with(file, ()):
        question_id = _question_id(file, row)
        if question_id in answers:
            raise InputError(
                f"{file.name}, row {row.number}: a second answer to question {question_id}; keep "
                "one answer per question"
            )
        answers[question_id] = ArenaHardAnswer(
            _model(file, row), _answer(file, row), _token_len(row)
        )
    if len(models := sorted({answer.model for answer in answers.values()})) > 1:
        raise InputError(
            f"{file.name}: there are answers of {len(models)} models ({', '.join(models[:3])}); a "
            "file must have the answers of one model"
        )
    return answers


def read_games(file: RowFile, categories: Mapping[str, str | None] | None) -> list[JudgedQuestion]:
    """Read games: question_id or uid, model, games (two scores), optional baseline and category.

    `categories` are the categories of the wanted questions; None if these are unknown. Without a
    column baseline, it is v0.1's. Raises InputError for a question that is not wanted, for two rows
    of a model and a question, and if the rows name several judges.
    """
    questions: dict[StyleKey, JudgedQuestion] = {}
    judges: set[str] = set()
    for row in rows_with(file, ("model", "games")):
        question_id, model = _question_id(file, row), text_of(file, row, "model")
        if categories is not None and question_id not in categories:
            raise InputError(
                f"{file.name}, row {row.number}: question {question_id} is not among the wanted "
                "questions; give files of the same version of Arena-Hard"
            )
        if (model, question_id) in questions:
            raise InputError(
                f"{file.name}, row {row.number}: question {question_id} of {model} occurs twice; "
                "keep one row per model and question"
            )
        own = row.fields.get("category")
        judges |= {judge} if (judge := optional_text(row, "judge")) else set()
        first, second = _labels(file, row)
        has_baseline = row.fields.get("baseline") is not None
        questions[model, question_id] = JudgedQuestion(
            question_id=question_id,
            model=model,
            baseline=text_of(file, row, "baseline") if has_baseline else BASELINE_V01,
            category=categories[question_id]
            if categories is not None
            else (own if isinstance(own, str) else None),
            first=first,
            second=second,
        )
    if len(judges) > 1:
        raise InputError(
            f"{file.name}: there are games of {len(judges)} judges (column judge: "
            f"{', '.join(sorted(judges)[:3])}); a file must have the games of one judge"
        )
    return list(questions.values())


def read_categories(file: RowFile) -> dict[str, str | None]:
    """Read the category of each wanted question: uid or question_id, optional category."""
    return {_question_id(file, row): optional_text(row, "category") for row in rows_with(file, ())}


def read_styles(files: Sequence[RowFile]) -> dict[StyleKey, StyleCounts]:
    """Read style counts by (model, question id) from style tables or files of answers.

    A row has model (v0.1's answers: model_id), and uid or question_id. The row, its `metadata` or
    its `conv_metadata` has token_len, header_count, list_count and bold_count (each a number, or
    numbers by kind). If the last three are absent, they are counted in the answer.
    """
    return {
        (_model(file, row), _question_id(file, row)): _style(file, row)
        for file in files
        for row in rows_with(file, ())
    }


def _prompt(file: RowFile, row: Row) -> str:
    match row.fields.get("prompt"), row.fields.get("turns"):
        case str(text), _:
            return text
        case None, [{"content": str(text)}]:
            return text
        case _:
            raise InputError(
                f"{file.name}, row {row.number}: there is no text of a question in prompt or in "
                "turns[0].content; give Arena-Hard's question.jsonl"
            )


def _model(file: RowFile, row: Row) -> str:
    if not {"model", "model_id"} & row.fields.keys():
        raise ColumnError(
            f"{file.name}, row {row.number}: there is no column model or model_id; the columns are "
            f"{', '.join(row.fields)}; give a file that has one of them"
        )
    return optional_text(row, "model") or text_of(file, row, "model_id")


def _answer(file: RowFile, row: Row) -> str:
    answer = _found_answer(row)
    if answer is None:
        raise InputError(
            f"{file.name}, row {row.number}: there is no answer in messages or in "
            "choices[0].turns; give a file of Arena-Hard's model_answer"
        )
    return answer


def _found_answer(row: Row) -> str | None:
    match row.fields:
        case {"messages": [*_, {"content": {"answer": str(text)}}]}:
            return text
        case {"messages": [*_, {"content": str(text), "role": "assistant"}]}:
            return text
        case {"choices": [{"turns": [{"content": {"answer": str(text)}}, *_]}, *_]}:
            return text
        case {"choices": [{"turns": [{"content": str(text)}, *_]}, *_]}:
            return text
        case _:
            return None


def _token_len(row: Row) -> int | None:
    match row.fields:
        case {"metadata": {"token_len": int(count)}} | {"conv_metadata": {"token_len": int(count)}}:
            return count
        case {"choices": [{"turns": [{"token_len": int(count)}, *_]}, *_]}:
            return count
        case _:
            return None


def _labels(file: RowFile, row: Row) -> tuple[str | None, str | None]:
    games = row.fields["games"]
    if not isinstance(games, list) or len(games) != 2:
        raise InputError(
            f"{file.name}, row {row.number}: games must be a list of two, the second with the "
            "answers swapped; use null for a missing game"
        )
    labels = []
    for game in games:
        if game is not None and not (isinstance(game, Mapping) and "score" in game):
            raise InputError(f"{file.name}, row {row.number}: a game lacks the column score")
        label = None if game is None else game["score"]
        labels.append(label if isinstance(label, str) else None)
    return labels[0], labels[1]


def _style(file: RowFile, row: Row) -> StyleCounts:
    parts = (row.fields.get(name) for name in ("metadata", "conv_metadata"))
    fields = next((part for part in parts if isinstance(part, Mapping)), row.fields)
    own = fields.get("token_len")
    tokens = own if isinstance(own, int) else _token_len(row)
    if tokens is None:
        raise InputError(
            f"{file.name}, row {row.number}: there is no column token_len, the answer's length in "
            "tokens"
        )
    if fields.get("header_count") is not None:
        return StyleCounts(
            tokens,
            *(_count(file, row, fields, f"{kind}_count") for kind in ("header", "list", "bold")),
        )
    answer = _found_answer(row)
    if answer is None:
        raise InputError(
            f"{file.name}, row {row.number}: there is neither a column header_count nor an "
            "answer in messages or in choices[0].turns in which to count headers"
        )
    return count_style(answer, num_tokens=tokens)


def _count(file: RowFile, row: Row, fields: Mapping[str, object], name: str) -> int:
    match fields.get(name):
        case int(number):
            return number
        case Mapping() as by_kind:
            numbers = [number for number in by_kind.values() if number is not None]
            if all(isinstance(number, int) for number in numbers):
                return sum(numbers)
            raise InputError(f"{file.name}, row {row.number}: {name} is {by_kind!r}")
        case found:
            raise InputError(f"{file.name}, row {row.number}: {name} is {found!r}")


def _question_id(file: RowFile, row: Row) -> str:
    columns = [column for column in ("question_id", "uid") if column in row.fields]
    given = [column for column in columns if row.fields[column] is not None]
    if columns:
        return text_of(file, row, [*given, *columns][0])
    raise ColumnError(
        f"{file.name}, row {row.number}: there is no column question_id or uid; the columns are "
        f"{', '.join(row.fields)}; give a file that has one of them"
    )
