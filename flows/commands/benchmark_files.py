"""Read the files of AlpacaEval and Arena-Hard into the records of `pvar.evaluation`.

Published scores must be reproducible from their files. An invalid line, or a row without a required
column, is therefore an error; no row is skipped.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from infra.row_files import STDIN, read_rows
from pvar.errors import InputError
from pvar.evaluation.arena_hard import JudgedQuestion
from pvar.evaluation.arena_hard_style import StyleKey
from pvar.evaluation.calibration import DIFFICULTY_FILE, GAMED_FILE, parse_calibration
from pvar.evaluation.length_control import Calibration
from pvar.evaluation.style import StyleCounts, count_style
from pvar.records import BadRow, Row


class Annotations(NamedTuple):
    """A judge's preferences for one model's answers, in the order of the file."""

    model: str
    baseline: str
    instructions: tuple[str, ...]
    preferences: tuple[float, ...]
    """On AlpacaEval's scale; NaN if missing."""


class Output(NamedTuple):
    """An answer's length and its instruction's number."""

    num_characters: int
    number: int | None
    """The instruction's number from the column index; None if the row has none."""


class CalibrationFiles(NamedTuple):
    """The tables of the length control, and the hashes of their files."""

    tables: Calibration
    difficulty_sha256: str
    gamed_sha256: str


def rows_with(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The file's rows. Raises InputError for an invalid line and for a row that lacks a column."""
    name = file_name(path)
    is_first = True
    for row in read_rows(path):
        if isinstance(row, BadRow):
            raise InputError(f"{name}, line {row.number}: {row.reason}; fix or remove it")
        if missing := [column for column in columns if column not in row.fields]:
            where = name if is_first else f"{name}, row {row.number}"
            raise InputError(
                f"{where}: there is no column {', '.join(missing)}; the columns are "
                f"{', '.join(row.fields)}"
            )
        is_first = False
        yield row


def file_name(path: Path) -> str:
    """Name of the file in messages."""
    return "standard input" if path == STDIN else str(path)


def read_annotations(path: Path) -> Annotations:
    """Read AlpacaEval annotations of one model: instruction, generator_1, generator_2, preference.

    Raises InputError if there are several models or baselines, or two rows for an instruction.
    """
    preferences: dict[str, float] = {}
    pairs: set[tuple[str, str]] = set()
    for row in rows_with(path, ("instruction", "generator_1", "generator_2", "preference")):
        instruction = _text(path, row, "instruction")
        if instruction in preferences:
            raise InputError(
                f"{file_name(path)}, row {row.number}: the instruction {instruction[:60]!r} is "
                "judged twice; keep one row per instruction"
            )
        preferences[instruction] = _number(path, row, "preference", default=float("nan"))
        pairs.add((_text(path, row, "generator_1"), _text(path, row, "generator_2")))
    if len(pairs) != 1:
        raise InputError(
            f"{file_name(path)}: there are {len(pairs)} pairs of generator_1 and generator_2; a "
            "file must compare one model with one baseline"
        )
    baseline, model = pairs.pop()
    return Annotations(model, baseline, tuple(preferences), tuple(preferences.values()))


def read_outputs(path: Path) -> dict[str, Output]:
    """Read a model's answers by instruction, in file order: instruction, output, optional index."""
    outputs: dict[str, Output] = {}
    for row in rows_with(path, ("instruction", "output")):
        instruction = _text(path, row, "instruction")
        if instruction in outputs:
            raise InputError(
                f"{file_name(path)}, row {row.number}: a second answer to {instruction[:60]!r}; "
                "keep one answer per instruction"
            )
        index = row.fields.get("index")
        outputs[instruction] = Output(
            num_characters=len(_text(path, row, "output")),
            number=index if isinstance(index, int) else None,
        )
    return outputs


def read_calibration(folder: Path) -> CalibrationFiles:
    """Read the length control's tables from a folder that contains both CSV files."""
    contents = []
    for name in (DIFFICULTY_FILE, GAMED_FILE):
        try:
            contents.append((folder / name).read_bytes())
        except OSError as error:
            raise InputError(
                f"{folder / name}: cannot be read ({error.strerror}); the calibration folder must "
                f"contain {DIFFICULTY_FILE} and {GAMED_FILE} (data set tatsu-lab/alpaca_eval)"
            ) from error
    difficulty, gamed = contents
    return CalibrationFiles(
        parse_calibration(difficulty.decode("utf-8-sig"), gamed.decode("utf-8-sig")),
        hashlib.sha256(difficulty).hexdigest(),
        hashlib.sha256(gamed).hexdigest(),
    )


def read_games(path: Path, categories: Mapping[str, str | None] | None) -> list[JudgedQuestion]:
    """Read Arena-Hard games: question_id, model, baseline, games (two scores), optional category.

    `categories` are the categories of the wanted questions; None if these are unknown. Raises
    InputError for a question that is not wanted, and for two rows of a model and a question.
    """
    questions: dict[StyleKey, JudgedQuestion] = {}
    for row in rows_with(path, ("question_id", "model", "baseline", "games")):
        question_id, model = _text(path, row, "question_id"), _text(path, row, "model")
        if categories is not None and question_id not in categories:
            raise InputError(
                f"{file_name(path)}, row {row.number}: question {question_id} is not among the "
                "wanted questions; give files of the same version of Arena-Hard"
            )
        if (model, question_id) in questions:
            raise InputError(
                f"{file_name(path)}, row {row.number}: question {question_id} of {model} occurs "
                "twice; keep one row per model and question"
            )
        own = row.fields.get("category")
        first, second = _labels(path, row)
        questions[model, question_id] = JudgedQuestion(
            question_id=question_id,
            model=model,
            baseline=_text(path, row, "baseline"),
            category=categories[question_id]
            if categories is not None
            else (own if isinstance(own, str) else None),
            first=first,
            second=second,
        )
    return list(questions.values())


def read_questions(path: Path) -> dict[str, str | None]:
    """Read the category of each wanted question: uid or question_id, optional category."""
    categories: dict[str, str | None] = {}
    for row in rows_with(path, ()):
        category = row.fields.get("category")
        categories[_question_id(path, row)] = category if isinstance(category, str) else None
    return categories


def read_styles(paths: Sequence[Path]) -> dict[StyleKey, StyleCounts]:
    """Read style counts by (model, question id) from style tables or files of answers.

    A row has model, and uid or question_id. The row or its `metadata` has token_len, header_count,
    list_count and bold_count (each a number, or numbers by kind). If the last three are absent,
    they are counted in the answer, `messages[-1].content.answer`.
    """
    return {
        (_text(path, row, "model"), _question_id(path, row)): _style(path, row)
        for path in paths
        for row in rows_with(path, ("model",))
    }


def _labels(path: Path, row: Row) -> tuple[str | None, str | None]:
    games = row.fields["games"]
    if not isinstance(games, list) or len(games) != 2:
        raise InputError(
            f"{file_name(path)}, row {row.number}: games must be a list of two, the second with "
            "the answers swapped; use null for a missing game"
        )
    labels = []
    for game in games:
        if game is not None and not (isinstance(game, Mapping) and "score" in game):
            raise InputError(f"{file_name(path)}, row {row.number}: a game lacks the column score")
        label = None if game is None else game["score"]
        labels.append(label if isinstance(label, str) else None)
    return labels[0], labels[1]


def _style(path: Path, row: Row) -> StyleCounts:
    metadata = row.fields.get("metadata")
    fields = metadata if isinstance(metadata, Mapping) else row.fields
    tokens = fields.get("token_len")
    if not isinstance(tokens, int):
        raise InputError(
            f"{file_name(path)}, row {row.number}: there is no column token_len, the answer's "
            "length in tokens"
        )
    if "header_count" in fields:
        return StyleCounts(
            tokens,
            *(_count(path, row, fields, f"{kind}_count") for kind in ("header", "list", "bold")),
        )
    match row.fields.get("messages"):
        case [*_, {"content": {"answer": str(answer)}}]:
            return count_style(answer, num_tokens=tokens)
        case _:
            raise InputError(
                f"{file_name(path)}, row {row.number}: there is neither a column header_count nor "
                "an answer in messages in which to count headers"
            )


def _count(path: Path, row: Row, fields: Mapping[str, object], name: str) -> int:
    match fields.get(name):
        case int(number):
            return number
        case Mapping() as by_kind if all(isinstance(number, int) for number in by_kind.values()):
            return sum(by_kind.values())
        case found:
            raise InputError(f"{file_name(path)}, row {row.number}: {name} is {found!r}")


def _question_id(path: Path, row: Row) -> str:
    return _text(path, row, "question_id" if "question_id" in row.fields else "uid")


def _text(path: Path, row: Row, column: str) -> str:
    value = row.fields.get(column)
    if not isinstance(value, str):
        raise InputError(
            f"{file_name(path)}, row {row.number}: {column} is {value!r}; it must be a string"
        )
    return value


def _number(path: Path, row: Row, column: str, *, default: float) -> float:
    value = row.fields[column]
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{file_name(path)}, row {row.number}: {column} is {value!r}; it must be a number"
        )
    return float(value)
