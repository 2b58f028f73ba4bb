"""Exports of Argilla and Label Studio: a pair where the votes agree, a prompt where they do not."""

from typing import Any

import pytest

from pvar.prompt_rows import parse_prompt
from pvar.records import Prompt
from pvar.source_forms import forms_of, to_trl

TEXTS = {"prompt": "Why?", "response_1": "Yes.", "response_2": "No."}
PAIR = parse_prompt({"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}, "test")
REVERSE = parse_prompt({"prompt": "Why?", "chosen": "No.", "rejected": "Yes."}, "test")
ALONE = parse_prompt({"prompt": "Why?"}, "test")


def argilla(*values: object, status: str | None = "submitted", **texts: object) -> dict[str, Any]:
    responses = [{"value": value, "user_id": "u", "status": status} for value in values]
    return {"fields": TEXTS | texts, "responses": {"better": responses}, "suggestions": {}}


def flat(*values: object, status: str = "submitted") -> dict[str, Any]:
    return {
        "id": "1",
        "_server_id": "2",
        "status": "completed",
        **TEXTS,
        "better.responses": list(values),
        "better.responses.users": ["u"] * len(values),
        "better.responses.status": [status] * len(values),
    }


def studio(*regions: dict[str, Any], cancelled: bool = False, **data: object) -> dict[str, Any]:
    annotations = [{"result": [each], "was_cancelled": cancelled} for each in regions]
    texts = {"prompt": "Why?", "answer1": "Yes.", "answer2": "No."}
    return {"id": 1, "data": texts | data, "annotations": annotations}


def selected(side: str) -> dict[str, Any]:
    return {"type": "pairwise", "value": {"selected": side}}


def choice(name: str) -> dict[str, Any]:
    return {"type": "choices", "value": {"choices": [name]}}


def ranking(*ranks: int) -> list[dict[str, Any]]:
    return [{"value": f"response-{n}", "rank": rank} for n, rank in enumerate(ranks, start=1)]


@pytest.mark.parametrize(
    ("row", "same"),
    [
        (argilla("response_1"), PAIR),
        (argilla("response-1", "response-1"), PAIR),
        (argilla("2"), REVERSE),
        (argilla(ranking(2, 1)), REVERSE),
        (argilla(ranking(1, 1)), ALONE),
        (argilla("response_1", "response_2"), ALONE),
        (argilla("response_1", "tie"), ALONE),
        (argilla("response_1", status="draft"), ALONE),
        (argilla("fluent"), ALONE),
        (argilla(), ALONE),
        (argilla("response_1", prompt=[{"role": "user", "content": "Why?"}]), PAIR),
        (flat("response_1"), PAIR),
        (flat("response_1", status="discarded"), ALONE),
        (studio(selected("left")), PAIR),
        (studio(selected("right"), selected("right")), REVERSE),
        (studio(selected("left"), selected("right")), ALONE),
        (studio(choice("answer1")), PAIR),
        (studio(choice("tie")), ALONE),
        (studio(selected("left"), cancelled=True), ALONE),
        (studio(), ALONE),
    ],
)
def test_votes_that_agree_make_a_pair(row: dict[str, Any], same: Prompt) -> None:
    form = "argilla" if "annotations" not in row else "label_studio"
    read = to_trl(row, form)  # type: ignore[arg-type]
    assert not isinstance(read, str)
    assert parse_prompt(read, "test") == same
    if "prompt" not in row:
        assert forms_of(row) == [form]
        assert parse_prompt(row, "test") == same


def test_a_flat_record_is_a_prompt_where_its_form_is_not_named() -> None:
    """It is one of TRL's rows, so that it is read as before."""
    assert parse_prompt(flat("response_1"), "test") == ALONE


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (argilla("response_1", response_3="So."), "more_than_two_answers"),
        (argilla("response_1", question="Why?"), "several_prompts"),
        (argilla("response_1", prompt=None), "no_prompt"),
        (studio(selected("left"), pair_id="p1"), "answer_to_queue_export"),
        ({"annotations": [], "data": {}}, "no_prompt"),
        ({"annotations": [7, {"result": [7, {"value": 7}]}], "data": {"prompt": 7}},
         "prompt_not_text_or_messages"),
    ],
)  # fmt: skip
def test_an_export_that_cannot_be_read_is_named(row: dict[str, Any], reason: str) -> None:
    assert parse_prompt(row, "test") == reason


def test_other_rows_are_none() -> None:
    assert to_trl({"prompt": "Why?"}, "argilla") == "not_argilla"
    assert to_trl({"prompt": "Why?"}, "label_studio") == "not_label_studio"
