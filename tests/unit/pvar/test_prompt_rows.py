"""Rows of users' files: TRL's formats are read, everything else is named as a reason."""

import pytest

from pvar.digest import prompt_id
from pvar.prompt_rows import parse_prompt
from pvar.records import Message, Prompt

USER = {"role": "user", "content": "Why?"}
YES, NO = {"role": "assistant", "content": "Yes."}, {"role": "assistant", "content": "No."}


def parsed(row: dict[str, object]) -> Prompt:
    prompt = parse_prompt(row, "test")
    assert isinstance(prompt, Prompt), prompt
    return prompt


def test_standard_and_conversational_rows_are_the_same_prompt() -> None:
    standard = parsed({"prompt": "Why?", "chosen": "Yes.", "rejected": "No."})
    conversational = parsed({"prompt": [USER], "chosen": [YES], "rejected": [NO]})
    assert standard == conversational
    assert standard.messages == (Message("user", "Why?"),)
    assert standard.prompt_id == prompt_id(standard.messages)
    assert (standard.chosen, standard.rejected) == ("Yes.", "No.")


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [USER, YES], "rejected": [USER, NO]},
        {"prompt": "Why?", "chosen": [USER, YES], "rejected": [USER, NO]},
        {"messages": [USER], "chosen": [YES], "rejected": [NO]},
    ],
    ids=["implicit prompt", "answers repeat the prompt", "messages for prompt"],
)
def test_other_known_forms_are_the_same_too(row: dict[str, object]) -> None:
    assert parsed(row) == parsed({"prompt": "Why?", "chosen": "Yes.", "rejected": "No."})


def test_several_turns_are_kept() -> None:
    turns = [{"role": "system", "content": "Be brief."}, USER, YES, USER]
    assert [message.role for message in parsed({"prompt": turns}).messages] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no_prompt"),
        ({"text": "Why?"}, "no_prompt"),
        ({"prompt": None}, "no_prompt"),
        ({"prompt": ""}, "empty_prompt"),
        ({"prompt": " \n\t"}, "empty_prompt"),
        ({"prompt": [{"role": "system", "content": "Be brief."}]}, "empty_prompt"),
        ({"prompt": 7}, "prompt_not_text_or_messages"),
        ({"prompt": []}, "prompt_not_text_or_messages"),
        ({"prompt": ["Why?"]}, "prompt_not_text_or_messages"),
        ({"prompt": {"role": "user", "content": "Why?"}}, "prompt_not_text_or_messages"),
        ({"prompt": [{"role": "human", "content": "Why?"}]}, "unknown_role"),
        ({"prompt": [{"role": ["user"], "content": "Why?"}]}, "unknown_role"),
        ({"prompt": [{"role": "user"}]}, "message_without_text"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "message_without_text"),
        ({"prompt": [USER, YES]}, "prompt_ends_with_assistant"),
        ({"prompt": "Why?", "chosen": "Yes."}, "chosen_without_rejected"),
        ({"prompt": "Why?", "rejected": "No."}, "rejected_without_chosen"),
        ({"prompt": "Why?", "chosen": 1, "rejected": 2}, "answer_not_text"),
        ({"prompt": "Why?", "chosen": [USER], "rejected": [NO]}, "answer_not_text"),
        ({"chosen": "Yes.", "rejected": "No."}, "no_prompt"),
        ({"chosen": [YES], "rejected": [NO]}, "no_prompt"),
    ],
)
def test_what_is_no_prompt_is_named(row: dict[str, object], reason: str) -> None:
    assert parse_prompt(row, "test") == reason


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [("7", ("7",)), (["7", "seven"], ("7", "seven")), (None, ())],
)
def test_an_answer_or_a_list_of_them_makes_a_question(
    answer: object, accepted: tuple[str, ...]
) -> None:
    question = parsed({"prompt": "Three and four?", "answer": answer})
    assert question.accepted_answers == accepted
    assert question.is_question == bool(accepted)
    assert question.prompt_id == parsed({"prompt": "Three and four?"}).prompt_id


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (7, "accepted_answer_not_text"),
        (["7", 7], "accepted_answer_not_text"),
        ([], "accepted_answer_not_text"),
        ({"text": "7"}, "accepted_answer_not_text"),
        ("", "accepted_answer_without_words"),
        (["7", " ?! "], "accepted_answer_without_words"),  # it would be found in every answer
    ],
)
def test_an_answer_that_cannot_be_looked_for_is_named(answer: object, reason: str) -> None:
    row = {"prompt": "Three and four?", "answer": answer}
    assert parse_prompt(row, "test") == reason


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (7, 7.0),
        (0, 0.0),
        (None, None),
        ("7", None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
def test_a_score_is_a_finite_number_or_missing(value: object, score: float | None) -> None:
    # Missing is missing, never zero; and 10⁴⁰⁰ is JSON, but no float.
    row = {"prompt": "Why?", "chosen": "Yes.", "rejected": "No.", "score_chosen": value}
    assert parsed(row).chosen_score == score
