"""The prompts of an exam, and the two names that say which results are comparable."""

import pytest
from pydantic import ValidationError

from pvar.config import EXAM_NAME, PipelineConfig
from pvar.digest import prompt_id
from pvar.exam import conditions_digest, exam_digest, read_exam
from pvar.records import BadRow, Message, Row

RIVER = {"prompt": "Name a river."}
RIVER_QUESTION = {"prompt": "Name a river.", "answer": ["Rhine", "Elbe"]}
LAKE = {"prompt": "Name a lake."}


def rows(*fields: dict[str, object]) -> list[Row | BadRow]:
    return [Row(number, each) for number, each in enumerate(fields, start=1)]


def test_prompts_of_several_files_are_held_out_once_and_other_rows_are_counted() -> None:
    exam = read_exam(
        [
            ("a.jsonl", [*rows(RIVER, {"text": "?"}), BadRow(3, "no JSON")]),
            ("b.jsonl", rows(LAKE, RIVER)),
        ]
    )
    assert {(prompt.messages[0].content, prompt.source) for prompt in exam.prompts} == {
        ("Name a river.", "a.jsonl"),
        ("Name a lake.", "b.jsonl"),
    }
    assert {prompt.split for prompt in exam.prompts} == {"eval"}
    assert exam.rejected == {"duplicate": 1, "no_prompt": 1, "unreadable_line": 1}


def test_a_field_of_the_rows_names_their_source() -> None:
    exam = read_exam([("a.jsonl", rows({**RIVER, "dataset": "web"}, LAKE))], "dataset")
    assert {prompt.source for prompt in exam.prompts} == {"web", "a.jsonl"}


def test_of_a_row_with_a_label_the_prompt_is_asked() -> None:
    labelled = {**RIVER, "completion": "Rhine", "label": True}
    (kept,) = read_exam([("a.jsonl", rows(labelled))]).prompts
    assert (kept.messages[0].content, kept.split, kept.chosen) == ("Name a river.", "eval", None)


@pytest.mark.parametrize("order", [(RIVER, RIVER_QUESTION), (RIVER_QUESTION, RIVER)])
def test_of_equal_prompts_the_ability_question_is_kept(
    order: tuple[dict[str, object], ...],
) -> None:
    (kept,) = read_exam([("a.jsonl", rows(*order))]).prompts
    assert kept.accepted_answers == ("Rhine", "Elbe")


def test_an_exam_is_its_questions_wherever_they_come_from() -> None:
    one = read_exam([("a.jsonl", rows(RIVER, LAKE))]).prompts
    other = read_exam([("b.jsonl", rows(LAKE)), ("c.jsonl", rows(RIVER))]).prompts
    assert exam_digest(one) == exam_digest(reversed(other))
    assert exam_digest(one) != exam_digest(one[:1])
    question = read_exam([("a.jsonl", rows(RIVER_QUESTION, LAKE))]).prompts
    assert [prompt.prompt_id for prompt in question] == [prompt.prompt_id for prompt in one]
    assert exam_digest(question) != exam_digest(one)  # answers are compared, not judged
    assert prompt_id((Message("user", "Name a river."),)) in {each.prompt_id for each in one}


def test_conditions_are_all_but_the_model() -> None:
    judge, answers = {"kind": "afinn"}, {"policy": "train/a", "settings": {"top_p": 0.9}, "seed": 1}
    known = conditions_digest(judge, "both", answers)
    assert conditions_digest(judge, "both", {**answers, "policy": "train/b"}) == known
    for other in (
        conditions_digest({"kind": "fake"}, "both", answers),
        conditions_digest(judge, "seeded", answers),
        conditions_digest(judge, "both", {**answers, "settings": {"top_p": 0.8}}),
        conditions_digest(judge, "both", {**answers, "num_responses": 2}),
    ):
        assert other != known


def test_a_benchmark_may_not_have_the_name_of_the_exam() -> None:
    benchmark = {"kind": "lm_eval", "name": EXAM_NAME, "tasks": ["gsm8k"]}
    PipelineConfig.model_validate({"benchmarks": [benchmark]})
    with pytest.raises(ValidationError, match=r"a benchmark is named evaluate\.prompts"):
        PipelineConfig.model_validate(
            {"benchmarks": [benchmark], "evaluate": {"prompts": ["exam.jsonl"]}}
        )
