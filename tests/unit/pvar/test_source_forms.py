"""Rows in other projects' forms are TRL's rows, or rejected by name."""

from typing import Any

import pytest

from pvar.answer_rows import parse_pool_prompt
from pvar.pair_forms import UNKNOWN, pair_row
from pvar.prompt_rows import parse_prompt, parse_prompt_or_label
from pvar.records import Message, Pair, Prompt
from pvar.source_forms import SourceFormat, forms_of, to_trl
from pvar.unpaired_labels import UnpairedLabel
from pvar.withdrawal import ids_of_row

USER, YES, NO = (
    {"role": role, "content": text}
    for role, text in (("user", "Why?"), ("assistant", "Yes."), ("assistant", "No."))
)
HUMAN, GPT, OTHER = (
    {"from": name, "value": text}
    for name, text in (("human", "Why?"), ("gpt", "Yes."), ("gpt", "No."))
)
BEGINNING = "\n\nHuman: Why?\n\nAssistant: "
PROMPT = {"prompt": "Why?"}
PAIR = PROMPT | {"chosen": "Yes.", "rejected": "No."}
FEEDBACK = {"instruction": "Why?", "completions": [{"response": "Yes."}, {"response": "No."}]}
TURNS = [USER, YES, {"role": "user", "content": "Really?"}]

FORMS: list[tuple[SourceFormat, dict[str, Any], dict[str, Any]]] = [
    ("openai", {"messages": [USER, YES]}, PROMPT),
    ("openai", {"messages": [*TURNS, NO]}, {"prompt": TURNS}),
    (
        "openai",
        {
            "input": {"messages": [USER], "tools": []},
            "preferred_output": [YES],
            "non_preferred_output": [NO],
        },
        PAIR,
    ),
    ("sharegpt", {"conversations": [HUMAN, GPT]}, PROMPT),
    ("sharegpt", {"messages": [HUMAN, GPT]}, PROMPT),
    ("sharegpt", {"conversations": [HUMAN]}, PROMPT),
    ("sharegpt", {"conversations": [USER, YES]}, PROMPT),
    (
        "sharegpt",
        {"conversations": [HUMAN, GPT], "system": "Be brief."},
        PROMPT | {"system": "Be brief."},
    ),
    ("alpaca", {"instruction": "Why?", "input": "", "output": "Yes."}, PROMPT),
    ("alpaca", {"instruction": "Add.", "input": "1, 2"}, {"prompt": "Add.\n1, 2"}),
    ("alpaca", {"instruction": "", "input": "Why?"}, PROMPT),
    ("alpaca", {"instruction": "Why?", "input": "Why?"}, PROMPT),
    ("alpaca", {"instruction": "Why?", "answer": "7"}, PROMPT | {"answer": "7"}),
    ("llama_factory", {"conversations": [HUMAN], "chosen": GPT, "rejected": OTHER}, PAIR),
    ("llama_factory", {"messages": [HUMAN], "chosen": [GPT], "rejected": [OTHER]}, PAIR),
    ("llama_factory", {"instruction": "Why?", "chosen": "Yes.", "rejected": "No."}, PAIR),
    (
        "llama_factory",
        {"instruction": "Really?", "history": [["Why?", "Yes."]], "output": "No."},
        {"prompt": TURNS},
    ),
    ("hh", {"chosen": f"{BEGINNING}Yes.", "rejected": f"{BEGINNING}No."}, PAIR),
    ("ultrafeedback", FEEDBACK, PROMPT),
]
"""Form, row, and the row of TRL's that says the same."""


def parsed(row: dict[str, Any]) -> Prompt:
    prompt = parse_prompt(row, "test")
    assert isinstance(prompt, Prompt), prompt
    return prompt


@pytest.mark.parametrize(("form", "row", "same"), FORMS)
def test_a_row_of_another_project_is_read_as_trls(
    form: SourceFormat, row: dict[str, Any], same: dict[str, Any]
) -> None:
    assert forms_of(row) == [form]
    assert parsed(row) == parsed(same)
    read = to_trl(row, form)
    assert to_trl(row) == read != row
    assert not isinstance(read, str)
    assert to_trl(read) is read  # reading twice changes nothing
    assert read.items() >= {name: row[name] for name in row if name not in PAIR}.items()
    assert parsed(same).prompt_id in ids_of_row(row)
    in_parquet = row | dict.fromkeys(("prompt", "messages", "instruction", "label"))
    assert parsed(in_parquet | row) == parsed(same)


@pytest.mark.parametrize(
    "row",
    [
        PROMPT,
        PAIR,
        PAIR | {"instruction": "Other?", "conversations": [HUMAN], "messages": [USER, YES]},
        {"messages": [USER]},
        {"messages": [USER], "chosen": "Yes.", "rejected": "No.", "instruction": "Other?"},
        {"messages": "Why?", "conversations": [HUMAN, GPT]},
        {"messages": [USER], "chosen": [YES], "rejected": [USER, NO], "instruction": "Other?"},
        {"chosen": [USER, YES], "rejected": [USER, NO], "instruction": "Other?"},
        PROMPT | {"chosen": f"{BEGINNING}Yes.", "rejected": f"{BEGINNING}No."},
    ],
)
def test_what_is_in_a_form_of_trl_is_read_as_before(row: dict[str, Any]) -> None:
    """Also beside columns of other forms."""
    assert forms_of(row) == ["trl"]
    assert to_trl(row) is row
    assert to_trl(row, "trl") is row
    parsed(row)


@pytest.mark.parametrize(
    ("row", "forms"),
    [
        ({"messages": [USER, YES], "conversations": [HUMAN]}, ["openai", "sharegpt"]),
        ({"conversations": [HUMAN], "instruction": "Why?"}, ["alpaca", "sharegpt"]),
        (FEEDBACK | {"output": "Yes."}, ["alpaca", "ultrafeedback"]),
        (FEEDBACK | {"chosen": "Yes.", "rejected": "No."}, ["llama_factory", "ultrafeedback"]),
        (
            {"instruction": "Why?", "chosen": BEGINNING, "rejected": BEGINNING},
            ["hh", "llama_factory"],
        ),
    ],
)
def test_a_row_of_two_forms_is_read_where_one_is_named(
    row: dict[str, Any], forms: list[SourceFormat]
) -> None:
    assert forms_of(row) == forms
    assert parse_prompt(row, "test") == "ambiguous_form"
    for form in forms:
        assert not isinstance(to_trl(row, form), str)


def test_of_two_conversations_the_one_of_the_form_is_read() -> None:
    row = {"messages": [USER, YES], "conversations": [{"from": "human", "value": "Who?"}]}
    for form, text in (("openai", "Why?"), ("sharegpt", "Who?")):
        read = to_trl(row, form)  # type: ignore[arg-type]
        assert not isinstance(read, str)
        assert parsed(dict(read)).messages[0].content == text
    assert parse_prompt(row | {"kto_tag": True}, "test") == "ambiguous_form"


def test_a_form_that_is_named_reads_no_other() -> None:
    assert to_trl({"instruction": "Why?"}, "trl") == "other_form"
    assert to_trl(PROMPT, "alpaca") == "no_instruction"
    assert to_trl(PROMPT, "ultrafeedback") == "no_instruction"
    assert to_trl(PROMPT, "sharegpt") == "no_conversations"
    assert to_trl(PROMPT, "openai") == "no_messages"
    assert to_trl(PROMPT, "hh") == "not_a_transcript"
    hh = {"prompt": BEGINNING, "chosen": "Yes.", "rejected": "No."}
    read = to_trl(hh, "hh")
    assert not isinstance(read, str)
    assert parse_prompt(read, "test") == parsed(PAIR)
    assert parsed(hh).messages[0].content == BEGINNING  # a text as any other, where none is named


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": "Why?"}, "prompt_not_text_or_messages"),
        ({"conversations": []}, "prompt_not_text_or_messages"),
        ({"conversations": [HUMAN, "Yes."]}, "prompt_not_text_or_messages"),
        ({"conversations": [GPT]}, "empty_prompt"),
        ({"conversations": [HUMAN, GPT, OTHER]}, "prompt_ends_with_assistant"),
        ({"conversations": [{"from": "narrator", "value": "x"}, GPT]}, "unknown_role"),
        (
            {"conversations": [HUMAN, {"from": "function_call", "value": "{}"}, HUMAN]},
            "tool_message_not_supported",
        ),
        ({"conversations": [HUMAN, GPT], "tools": "[{}]"}, "tools_not_supported"),
        ({"conversations": [], "instruction": 7, "tools": "[{}]"}, "tools_not_supported"),
        ({"conversations": [HUMAN], "images": ["a.png"]}, "images_not_supported"),
        (
            {"conversations": [HUMAN], "chosen": GPT | {"weight": 0}, "rejected": OTHER},
            "weight_not_supported",
        ),
        ({"conversations": [HUMAN], "chosen": GPT}, "chosen_without_rejected"),
        ({"conversations": [HUMAN], "kto_tag": True}, "kto_tag_without_answer"),
        ({"instruction": 7}, "instruction_not_text"),
        ({"instruction": "Why?", "input": ["x"]}, "input_not_text"),
        ({"instruction": "Why?", "output": ["Yes.", "No."]}, "output_not_text"),
        ({"instruction": "Why?", "history": ["Hi"]}, "history_not_pairs"),
        ({"instruction": "Why?", "kto_tag": True}, "kto_tag_without_answer"),
        (FEEDBACK | {"input": "1, 2"}, "input_not_supported"),
        (
            {"chosen": f"{BEGINNING}Yes.", "rejected": "\n\nHuman: Why?\n\nHuman: So?"},
            "not_a_transcript",
        ),
        ({"chosen": f"{BEGINNING}Yes.", "rejected": "\n\nHuman: So?\n\nAssistant: No."},
         "no_common_beginning"),
        (
            {
                "input": {"messages": [USER], "tools": [{"type": "function"}]},
                "preferred_output": [YES],
                "non_preferred_output": [NO],
            },
            "tools_not_supported",
        ),
        ({"conversations": [HUMAN, GPT], "chosen": GPT, "rejected": OTHER, "kto_tag": True},
         "ambiguous_form"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(row: dict[str, Any], reason: str) -> None:
    assert parse_prompt(row, "test") == reason


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [HUMAN, GPT], "kto_tag": True},
        {"instruction": "Why?", "output": "Yes.", "kto_tag": True},
    ],
)
def test_the_labels_of_llama_factory_are_those_of_unpaired_answers(row: dict[str, Any]) -> None:
    label = parse_prompt_or_label(row, "test")
    assert label == UnpairedLabel(parsed(PROMPT), "Yes.", is_good=True)


def test_what_is_exported_for_another_trainer_is_read_again() -> None:
    pair = Pair("a", (Message("user", "Why?"),), "Yes.", "No.", None, None)
    for trainer in ("trl", "openrlhf", "axolotl", "llama_factory", "plain"):
        assert parsed(pair_row(pair, UNKNOWN, trainer)) == parsed(PAIR)


def test_ultrafeedback_keeps_its_answers() -> None:
    row = to_trl(FEEDBACK)
    assert not isinstance(row, str)
    assert row["completions"] == FEEDBACK["completions"]
    assert parse_pool_prompt(row, "test") == parse_pool_prompt(FEEDBACK, "test") == parsed(PROMPT)
