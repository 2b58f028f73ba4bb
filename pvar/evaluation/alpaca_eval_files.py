"""AlpacaEval 2's own files: evaluation set, answers of a model, and annotations."""

from collections.abc import Mapping
from typing import NamedTuple

from pvar.errors import InputError
from pvar.evaluation.file_rows import RowFile, number_of, optional_text, rows_with, text_of
from pvar.records import Row


class EvaluationSetRow(NamedTuple):
    """An instruction of the evaluation set."""

    instruction: str
    number: int
    """The column index, or else the position in the file, from 0."""
    dataset: str | None


class AlpacaEvalOutput(NamedTuple):
    """A model's answer to an instruction."""

    text: str
    number: int | None
    """The instruction's number from the column index; None if the row has none."""
    generator: str | None
    """Name of the model; None if the row has none."""


class Annotations(NamedTuple):
    """A judge's preferences for one model's answers, in the order of the file."""

    model: str
    baseline: str
    instructions: tuple[str, ...]
    preferences: tuple[float, ...]
    """On AlpacaEval's scale; NaN if missing."""
    empty_answers: frozenset[str]
    """Instructions to which the annotated answer of the model (`output_2`) is empty."""
    judge: str | None
    """The column annotator; None if the file has none."""


def read_evaluation_set(file: RowFile) -> list[EvaluationSetRow]:
    """Read instruction, and optionally dataset and index. InputError for a repeated instruction."""
    rows: dict[str, EvaluationSetRow] = {}
    for position, row in enumerate(rows_with(file, ("instruction",))):
        instruction = text_of(file, row, "instruction")
        if instruction in rows:
            raise InputError(
                f"{file.name}, row {row.number}: the instruction {instruction[:60]!r} occurs a "
                "second time; keep one row per instruction"
            )
        index = _index(row)
        number = position if index is None else index
        rows[instruction] = EvaluationSetRow(instruction, number, optional_text(row, "dataset"))
    return list(rows.values())


def _index(row: Row) -> int | None:
    index = row.fields.get("index")
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def read_outputs(file: RowFile) -> dict[str, AlpacaEvalOutput]:
    """Read answers by instruction, in file order: instruction, output, optional index, generator.

    Raises InputError for a second answer to an instruction, and for answers of several models.
    """
    outputs: dict[str, AlpacaEvalOutput] = {}
    for row in rows_with(file, ("instruction", "output")):
        instruction = text_of(file, row, "instruction")
        if instruction in outputs:
            raise InputError(
                f"{file.name}, row {row.number}: a second answer to {instruction[:60]!r}; keep one "
                "answer per instruction"
            )
        outputs[instruction] = AlpacaEvalOutput(
            text=text_of(file, row, "output"),
            number=_index(row),
            generator=optional_text(row, "generator"),
        )
    generator_of(outputs, file.name)
    return outputs


def generator_of(outputs: Mapping[str, AlpacaEvalOutput], name: str) -> str | None:
    """The model that made the answers; None if they do not say. InputError if there are several."""
    names = sorted({output.generator for output in outputs.values() if output.generator})
    if len(names) > 1:
        raise InputError(
            f"{name}: there are answers of {len(names)} models (column generator: "
            f"{', '.join(names[:3])}); a file must have the answers of one model"
        )
    return names[0] if names else None


def read_annotations(file: RowFile) -> Annotations:
    """Read annotations of one model: instruction, generator_1, generator_2, preference.

    Raises InputError if there are several models, baselines or judges (column annotator), or two
    rows for an instruction.
    """
    preferences: dict[str, float] = {}
    pairs: set[tuple[str, str]] = set()
    empty: set[str] = set()
    judges: set[str] = set()
    for row in rows_with(file, ("instruction", "generator_1", "generator_2", "preference")):
        instruction = text_of(file, row, "instruction")
        if instruction in preferences:
            raise InputError(
                f"{file.name}, row {row.number}: the instruction {instruction[:60]!r} is judged "
                "twice; keep one row per instruction"
            )
        preferences[instruction] = number_of(file, row, "preference", default=float("nan"))
        pairs.add((text_of(file, row, "generator_1"), text_of(file, row, "generator_2")))
        if row.fields.get("output_2") == "":
            empty.add(instruction)
        judges |= {judge} if (judge := optional_text(row, "annotator")) else set()
    if len(pairs) != 1:
        raise InputError(
            f"{file.name}: there are {len(pairs)} pairs of generator_1 and generator_2; a file "
            "must compare one model with one baseline"
        )
    if len(judges) > 1:
        raise InputError(
            f"{file.name}: there are preferences of {len(judges)} judges (column annotator: "
            f"{', '.join(sorted(judges)[:3])}); a file must have the preferences of one judge"
        )
    baseline, model = pairs.pop()
    return Annotations(
        model=model,
        baseline=baseline,
        instructions=tuple(preferences),
        preferences=tuple(preferences.values()),
        empty_answers=frozenset(empty),
        judge=next(iter(judges), None),
    )
