"""AlpacaEval's files: what is read of each row, and which files are refused."""

from collections.abc import Mapping
from typing import Any

import pytest

from pvar.errors import InputError
from pvar.evaluation.alpaca_eval_files import (
    AlpacaEvalOutput,
    EvaluationSetRow,
    generator_of,
    read_annotations,
    read_evaluation_set,
    read_outputs,
)
from pvar.evaluation.file_rows import RowFile
from pvar.records import BadRow, Row


def file(*rows: Mapping[str, Any] | BadRow, name: str = "file.json") -> RowFile:
    return RowFile(
        name,
        [
            row if isinstance(row, BadRow) else Row(number, row)
            for number, row in enumerate(rows, start=1)
        ],
    )


def test_instructions_are_numbered_by_the_column_index_or_else_by_their_place() -> None:
    numbered = read_evaluation_set(
        file(
            {"instruction": "a", "dataset": "koala", "index": 7},
            {"instruction": "b", "dataset": "vicuna", "index": 3},
        )
    )
    assert numbered == [EvaluationSetRow("a", 7, "koala"), EvaluationSetRow("b", 3, "vicuna")]
    plain = read_evaluation_set(file({"instruction": "a"}, {"instruction": "b", "index": None}))
    assert plain == [EvaluationSetRow("a", 0, None), EvaluationSetRow("b", 1, None)]


def test_a_truth_value_is_no_number_of_an_instruction() -> None:
    rows = read_evaluation_set(file({"instruction": "a"}, {"instruction": "b", "index": True}))
    assert [row.number for row in rows] == [0, 1]
    answers = read_outputs(file({"instruction": "a", "output": "x", "index": True}))
    assert answers["a"].number is None


def test_answers_are_found_by_their_instruction_and_an_empty_one_is_an_answer() -> None:
    answers = read_outputs(
        file(
            {"instruction": "b", "output": "", "generator": "m", "index": 4},
            {"instruction": "a", "output": "yes", "generator": "m"},
        )
    )
    assert answers == {
        "b": AlpacaEvalOutput("", 4, "m"),
        "a": AlpacaEvalOutput("yes", None, "m"),
    }
    assert generator_of(answers, "file.json") == "m"


def test_answers_that_do_not_name_their_model_have_none() -> None:
    answers = read_outputs(file({"instruction": "a", "output": "x"}))
    assert generator_of(answers, "file.json") is None


def test_annotations_know_their_models_and_which_answers_are_empty() -> None:
    sides = {"generator_1": "gpt4", "generator_2": "m"}
    found = read_annotations(
        file(
            {"instruction": "a", **sides, "preference": 1.25, "output_2": "x"},
            {"instruction": "b", **sides, "preference": None, "output_2": ""},
        )
    )
    assert (found.baseline, found.model, found.judge) == ("gpt4", "m", None)
    assert found.preferences[0] == 1.25
    assert found.preferences[1] != found.preferences[1]  # NaN: missing
    assert found.empty_answers == {"b"}


QUESTION: Mapping[str, Any] = {"instruction": "Who wrote it?"}
ANSWER: Mapping[str, Any] = {**QUESTION, "output": "x", "generator": "m"}
ANNOTATION: Mapping[str, Any] = {
    **QUESTION, "generator_1": "b", "generator_2": "m", "preference": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("read", "rows", "message"),
    [
        (
            read_annotations,
            [
                {**ANNOTATION, "annotator": "a"},
                {**ANNOTATION, "instruction": "?", "annotator": "b"},
            ],
            r"^file\.json: there are preferences of 2 judges \(column annotator: a, b\); a file",
        ),
        (
            read_evaluation_set,
            [QUESTION, {"instruction": "Who wrote it?"}],
            r"^file\.json, row 2: the instruction 'Who wrote it\?' occurs a second time; keep one",
        ),
        (
            read_evaluation_set,
            [{"uid": "1", "prompt": "x"}],  # of Arena-Hard
            r"^file\.json: there is no column instruction; the columns are uid, prompt; give a",
        ),
        (
            read_evaluation_set,
            [QUESTION, {"prompt": "x"}],
            r"^file\.json, row 2: there is no column instruction; the columns are prompt; give a",
        ),
        (
            read_evaluation_set,
            [{"instruction": 3}],
            r"^file\.json, row 1: instruction is 3; it must be a string$",
        ),
        (
            read_evaluation_set,
            [QUESTION, BadRow(2, "invalid JSON")],
            r"^file\.json, line 2: invalid JSON; fix or remove it$",
        ),
        (
            read_outputs,
            [QUESTION],
            r"^file\.json: there is no column output; the columns are instruction; give a",
        ),
        (
            read_outputs,
            [{**ANSWER, "output": None}],
            r"^file\.json, row 1: output is None; it must be a string$",
        ),
        (
            read_outputs,
            [ANSWER, ANSWER],
            r"^file\.json, row 2: a second answer to 'Who wrote it\?'; keep one answer per",
        ),
        (
            read_outputs,
            [ANSWER, {"instruction": "b", "output": "y", "generator": "another"}],
            r"^file\.json: there are answers of 2 models \(column generator: another, m\); a file",
        ),
        (read_annotations, [ANNOTATION, ANNOTATION], r"row 2: .* is judged twice; keep one row"),
        (
            read_annotations,
            [ANNOTATION, {**ANNOTATION, "instruction": "b", "generator_2": "another"}],
            r"^file\.json: there are 2 pairs of generator_1 and generator_2; a file must compare",
        ),
        (
            read_annotations,
            [{**ANNOTATION, "preference": "2"}],
            r"^file\.json, row 1: preference is '2'; it must be a number$",
        ),
    ],
)
def test_a_file_that_cannot_be_what_it_should(read: Any, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(file(*rows))
