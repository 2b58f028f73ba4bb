"""Rows of users' files: TRL's formats are read, everything else is named as a reason."""

import math

import pytest

from pvar.digest import prompt_id
from pvar.prompt_rows import parse_prompt
from pvar.records import Message, Prompt

USER = {"role": "user", "content": "Why?"}
PART = {"type": "text", "text": "Why?"}
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
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "image_not_supported"),
        ({"prompt": [{"role": "user", "content": [PART, PART]}]}, "message_of_several_parts"),
        ({"prompt": [{"role": "user", "content": [{"type": "text"}]}]}, "message_without_text"),
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


GSM8K = "There are 3 and 4, so 3+4 = <<3+4=7>>7.\n#### 7"
MATH = r"Counting on from three we get four, five, six, seven: thus the sum is $\boxed{7}$."


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("7", ("7",)),
        (["7", "seven"], ("7", "seven")),
        (None, ()),
        ([GSM8K, "7"], (GSM8K, "7")),  # one that can be given is enough
        (r"\boxed{7}", (r"\boxed{7}",)),
        ("seven " * 50, ("seven " * 50,)),
        ("std::cout << x", ("std::cout << x",)),
        ("C# and #### apart", ("C# and #### apart",)),
    ],
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
        (GSM8K, "accepted_answer_is_worked_solution"),
        ([GSM8K, MATH], "accepted_answer_is_worked_solution"),
        ("Add them.\n#### 7", "accepted_answer_is_worked_solution"),
        (MATH, "accepted_answer_is_worked_solution"),
        ("seven " * 51, "accepted_answer_too_long"),
        ([GSM8K, "seven " * 51], "accepted_answer_too_long"),
    ],
)
def test_an_answer_that_cannot_be_looked_for_or_given_is_named(answer: object, reason: str) -> None:
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


@pytest.mark.parametrize("field", ["system", "system_prompt"])
def test_a_system_message_in_a_column_of_its_own_is_used(field: str) -> None:
    """Two rows that differ in it are two prompts."""
    latin = parsed({field: "In Latin.", "prompt": "Why?", "chosen": [USER, YES], "rejected": "No."})
    assert latin.messages == (Message("system", "In Latin."), Message("user", "Why?"))
    assert (latin.chosen, latin.rejected) == ("Yes.", "No.")
    assert latin.prompt_id != parsed({field: "In French.", "prompt": "Why?"}).prompt_id
    spoken = [{"role": "system", "content": "In Latin."}, USER]
    assert parsed({field: "In Latin.", "prompt": spoken}).messages == latin.messages
    for nothing in (None, "", " "):
        assert parsed({field: nothing, "prompt": "Why?"}) == parsed({"prompt": "Why?"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"system": "A.", "system_prompt": "B.", "prompt": "Why?"}, "two_system_messages"),
        (
            {"system": "A.", "prompt": [{"role": "system", "content": "B."}, USER]},
            "two_system_messages",
        ),
        ({"system": ["A."], "prompt": "Why?"}, "system_not_text"),
        ({"tools": [{"type": "function"}], "prompt": "Why?"}, "tools_not_supported"),
        ({"tools": '[{"type": "function"}]', "prompt": "Why?"}, "tools_not_supported"),
        ({"images": [{"bytes": b""}], "prompt": "Why?"}, "images_not_supported"),
        ({"documents": [{"text": "Because."}], "prompt": "Why?"}, "documents_not_supported"),
        (
            {"prompt": [USER], "chosen": [YES | {"tool_calls": [{}]}], "rejected": [NO]},
            "tool_calls_not_supported",
        ),
        ({"prompt": [USER, {"role": "tool", "content": "7"}]}, "tool_message_not_supported"),
        ({"functions": "[{}]", "prompt": "Why?"}, "functions_not_supported"),
        ({"audio": {"path": "a.wav"}, "prompt": "Why?"}, "audio_not_supported"),
        ({"prompt": [USER | {"videos": ["a.mp4"]}]}, "videos_not_supported"),
        (
            {"chat_template_kwargs": {"enable_thinking": False}, "prompt": "Why?"},
            "chat_template_kwargs_not_supported",
        ),
        ({"weight": 0.5, "prompt": "Why?"}, "weight_not_supported"),
        ({"sample_weight": 0, "prompt": "Why?"}, "sample_weight_not_supported"),
        (
            {"prompt": [USER], "chosen": [YES | {"weight": 0}], "rejected": [NO]},
            "weight_not_supported",
        ),
        (
            {"prompt": [USER], "chosen": [YES | {"reasoning_content": "Hm."}], "rejected": [NO]},
            "reasoning_content_not_supported",
        ),
        (
            {
                "prompt": "Why?",
                "chosen": "Yes.",
                "rejected": "No.",
                "completion": "Yes.",
                "label": False,
            },
            "two_labels",
        ),
        (
            {
                "prompt": "Why?",
                "chosen": "Yes.",
                "rejected": "No.",
                "completion": "So.",
                "label": True,
            },
            "two_labels",
        ),
    ],
)
def test_a_field_that_changes_what_a_row_means_is_named(
    row: dict[str, object], reason: str
) -> None:
    assert parse_prompt(row, "test") == reason


@pytest.mark.parametrize(
    ("completion", "label"),
    [("Yes. ", True), ([YES], 1), ("No.", False), ("So.", "helpful"), ("So.", None)],
)
def test_a_label_beside_a_pair_that_says_the_same_or_nothing_changes_nothing(
    completion: object, label: object
) -> None:
    row = {"prompt": [USER], "chosen": [YES], "rejected": [NO]}
    pair = parse_prompt(row, "test")
    assert not isinstance(pair, str)
    assert parse_prompt(row | {"completion": completion, "label": label}, "test") == pair


def test_what_is_null_or_empty_is_not_there() -> None:
    """In a Parquet file every row has every column."""
    nothing = {"tools": None, "images": [], "documents": "", "system": None, "messages": None}
    nothing |= {
        "weight": 1.0,
        "sample_weight": math.nan,
        "importance_weight": "1",
        "tool_calls": {"name": None},
    }
    nothing |= {"completion": "No.", "label": False}  # as the pair says
    without = {"tool_calls": None, "images": None, "weight": 1, "reasoning_content": ""}
    row = {"prompt": "Why?", "chosen": [YES | without], "rejected": [NO], **nothing}
    assert parsed(row) == parsed({"prompt": "Why?", "chosen": "Yes.", "rejected": "No."})
    assert parsed({"prompt": None, "messages": [USER]}) == parsed({"prompt": "Why?"})
    assert parsed({"prompt": [{"role": "user", "content": [PART]}]}) == parsed({"prompt": "Why?"})


def test_conversations_that_go_on_from_the_prompt_are_read_to_where_they_part() -> None:
    turns = [USER, YES, {"role": "user", "content": "Really?"}]
    row = {"prompt": "Why?", "chosen": [*turns, YES], "rejected": [*turns, NO]}
    assert parsed(row) == parsed({"prompt": turns, "chosen": "Yes.", "rejected": "No."})
    assert parsed(row | {"prompt": [USER]}) == parsed(row)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ([USER, YES, USER, YES], [USER, NO, USER, NO]),
        ([USER, YES, USER, YES], "No."),
        ([USER, YES, USER, YES], [USER, YES, USER]),
    ],
)
def test_answers_that_part_before_their_last_turn_are_named(
    chosen: object, rejected: object
) -> None:
    row = {"prompt": "Why?", "chosen": chosen, "rejected": rejected}
    assert parse_prompt(row, "test") == "answer_of_several_turns"


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nName a fruit.<|im_end|>\n<|im_start|>assistant\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nName a fruit.<|eot_id|>",
        "<bos><start_of_turn>user\nName a fruit.<end_of_turn>\n",
        "<s>[INST] Name a fruit. [/INST]",
        "<|user|>\nName a fruit.<|end|>",
        "Name a fruit.</s>",
    ],
)
def test_what_a_template_rendered_is_named(text: str) -> None:
    assert parse_prompt({"prompt": text}, "test") == "rendered_by_template"
    pair = {"prompt": "Name a fruit.", "chosen": "Banana.<|im_end|>\n", "rejected": "Coal."}
    assert parse_prompt(pair, "test") == "rendered_by_template"


@pytest.mark.parametrize(
    "text",
    [
        '[{"role": "user", "content": "Why?"}]',
        " {'messages': []}",
        '{"conversations": [{"from": "human", "value": "Why?"}]}',
    ],
)
def test_a_conversation_that_is_written_as_text_is_named(text: str) -> None:
    assert parse_prompt({"prompt": text}, "test") == "conversation_as_text"


@pytest.mark.parametrize(
    "text",
    [
        "What does <|im_start|> mean in a template?",
        "Explain [INST] and [/INST] to me.",
        'Parse {"role": "user"} with jq.',
        "Is <user> a tag in HTML?",
    ],
)
def test_a_question_about_templates_is_a_question(text: str) -> None:
    assert parsed({"prompt": text}).messages[0].content == text
