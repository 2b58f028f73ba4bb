"""Read the files of AlpacaEval and Arena-Hard into the records of `pvar.evaluation`.

A number must be reproducible from its files, so a bad line or a row without a needed column is an
error here, not a row that is left out.
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
    """A judge's preferences on one model's answers; rows are as in the file."""

    model: str
    baseline: str
    instructions: tuple[str, ...]
    preferences: tuple[float, ...]
    """On AlpacaEval's scale, NaN where there is none."""


class Output(NamedTuple):
    """An answer's length and where it stands."""

    num_characters: int
    number: int | None
    """The instruction's number, where the row has a column index."""


class CalibrationFiles(NamedTuple):
    """The tables of the length control, and what names them."""

    tables: Calibration
    difficulty_sha256: str
    gamed_sha256: str


def rows_with(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The file's rows. Raises InputError for a bad line and for a row that lacks a column."""
    name = file_name(path)
    is_first = True
    for row in read_rows(path):
        if isinstance(row, BadRow):
            raise InputError(f"{name}, line {row.number}: {row.reason}; mend or remove it")
        if missing := [column for column in columns if column not in row.fields]:
            where = name if is_first else f"{name}, row {row.number}"
            raise InputError(
                f"{where}: there is no column {', '.join(missing)}; the columns are "
                f"{', '.join(row.fields)}"
            )
        is_first = False
        yield row


def file_name(path: Path) -> str:
    """How messages call the file."""
    return "standard input" if path == STDIN else str(path)


def read_annotations(path: Path) -> Annotations:
    """Read AlpacaEval annotations of one model: instruction, generator_1, generator_2, preference.

    Raises InputError for several models or baselines, or an instruction judged twice.
    """
    preferences: dict[str, float] = {}
    pairs: set[tuple[str, str]] = set()
    for row in rows_with(path, ("instruction", "generator_1", "generator_2", "preference")):
        instruction = _text(path, row, "instruction")
        if instruction in preferences:
            raise InputError(
                f"{file_name(path)}, row {row.number}: the instruction {instruction[:60]!r} is "
                "judged twice; keep one judgment of each"
            )
        preferences[instruction] = _number(path, row, "preference", default=float("nan"))
        pairs.add((_text(path, row, "generator_1"), _text(path, row, "generator_2")))
    if len(pairs) != 1:
        raise InputError(
            f"{file_name(path)}: {len(pairs)} pairs of generator_1 and generator_2; a file must "
            "compare one model with one baseline"
        )
    baseline, model = pairs.pop()
    return Annotations(model, baseline, tuple(preferences), tuple(preferences.values()))


def read_outputs(path: Path) -> dict[str, Output]:
    """Read a model's answers (instruction, output, maybe index) by instruction, in file order."""
    outputs: dict[str, Output] = {}
    for row in rows_with(path, ("instruction", "output")):
        instruction = _text(path, row, "instruction")
        if instruction in outputs:
            raise InputError(
                f"{file_name(path)}, row {row.number}: a second answer to {instruction[:60]!r}; "
                "keep one of each"
            )
        index = row.fields.get("index")
        outputs[instruction] = Output(
            num_characters=len(_text(path, row, "output")),
            number=index if isinstance(index, int) else None,
        )
    return outputs


def read_calibration(folder: Path) -> CalibrationFiles:
    """Read the length control's tables from a folder with both CSV files."""
    contents = []
    for name in (DIFFICULTY_FILE, GAMED_FILE):
        try:
            contents.append((folder / name).read_bytes())
        except OSError as error:
            raise InputError(
                f"{folder / name}: cannot be read ({error.strerror}); the calibration folder holds "
                f"{DIFFICULTY_FILE} and {GAMED_FILE} (data set tatsu-lab/alpaca_eval)"
            ) from error
    difficulty, gamed = contents
    return CalibrationFiles(
        parse_calibration(difficulty.decode("utf-8-sig"), gamed.decode("utf-8-sig")),
        hashlib.sha256(difficulty).hexdigest(),
        hashlib.sha256(gamed).hexdigest(),
    )


def read_games(path: Path, categories: Mapping[str, str | None] | None) -> list[JudgedQuestion]:
    """Read Arena-Hard games: question_id, model, baseline, games (two scores), maybe category.

    `categories` are those of the wanted questions, where they are known. Raises InputError for a
    question that is not wanted, or that a model has twice.
    """
    questions: dict[StyleKey, JudgedQuestion] = {}
    for row in rows_with(path, ("question_id", "model", "baseline", "games")):
        question_id, model = _text(path, row, "question_id"), _text(path, row, "model")
        if categories is not None and question_id not in categories:
            raise InputError(
                f"{file_name(path)}, row {row.number}: question {question_id} is not among the "
                "wanted questions; are both files of the same version?"
            )
        if (model, question_id) in questions:
            raise InputError(
                f"{file_name(path)}, row {row.number}: question {question_id} of {model} is there "
                "twice; keep one row of each"
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
    """Read the category of each wanted question: uid or question_id, maybe category."""
    categories: dict[str, str | None] = {}
    for row in rows_with(path, ()):
        category = row.fields.get("category")
        categories[_question_id(path, row)] = category if isinstance(category, str) else None
    return categories


def read_styles(paths: Sequence[Path]) -> dict[StyleKey, StyleCounts]:
    """Read style counts by (model, question id) from style tables or files of answers.

    A row has model, uid or question_id, and, itself or under `metadata`, token_len with
    header_count, list_count and bold_count (numbers, or numbers by kind). Without those three they
    are counted in the answer, `messages[-1].content.answer`.
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
            "the answers swapped; write null for a game that is missing"
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
                "an answer in messages to count in"
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
            f"{file_name(path)}, row {row.number}: {column} is {value!r}, and not a text"
        )
    return value


def _number(path: Path, row: Row, column: str, *, default: float) -> float:
    value = row.fields[column]
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{file_name(path)}, row {row.number}: {column} is {value!r}, and not a number"
        )
    return float(value)
