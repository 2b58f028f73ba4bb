"""Which prompts a person's file names."""

import pytest

from pvar.answer_rows import parse_pool_prompt
from pvar.digest import prompt_id
from pvar.errors import InputError
from pvar.exam import read_exam
from pvar.incoming_rows import SeenRows, batch_rows, inspect_rows
from pvar.labelled_pairs import read_held_out_pairs
from pvar.prompt_rows import parse_prompt
from pvar.records import BadRow, Message, Prompt, Row
from pvar.unpaired_labels import UnpairedLabel
from pvar.withdrawal import ids_of_lines, ids_of_row, ids_of_rows

RIVER = prompt_id([Message("user", "Name a river.")])
LAKE = prompt_id([Message("user", "Name a lake.")])
AS_MESSAGES = [{"role": "user", "content": "Name a river."}]
ANSWERED = [*AS_MESSAGES, {"role": "assistant", "content": "Rhine"}]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Name a river."},
        {"prompt": AS_MESSAGES},
        {"messages": AS_MESSAGES},
        {"instruction": "Name a river.", "completions": []},
        {"chosen": ANSWERED, "rejected": [*AS_MESSAGES, {"role": "assistant", "content": "?"}]},
        {"prompt": "Name a river.", "completion": "Rhine", "label": True},
        # Invalid for training, and named all the same.
        {"prompt": "Name a river.", "chosen": "Rhine"},
        {"prompt": "Name a river.", "answer": []},
        # UltraFeedback's own ids are not those of pvar.
        {"prompt": "Name a river.", "prompt_id": "f" * 64},
    ],
)
def test_a_row_names_its_prompt_in_every_form(fields: dict[str, object]) -> None:
    assert ids_of_row(fields) == {RIVER}
    assert ids_of_rows([Row(1, fields)], "f.jsonl") == {RIVER}


@pytest.mark.parametrize("answers", [{}, {"chosen": "Rhine"}])  # the second is invalid
def test_a_system_prompt_is_part_of_the_prompt(answers: dict[str, str]) -> None:
    messages = [Message("system", "Be brief."), Message("user", "Name a river.")]
    fields = {"system": "Be brief.", "prompt": "Name a river.", **answers}
    assert ids_of_row(fields) == {prompt_id(messages)} != {RIVER}


def test_a_transcript_is_named_as_both_readers_read_it() -> None:
    fields = {"prompt": "\n\nHuman: Name a river.\n\nAssistant:", "answers": []}
    as_prompt, as_pool = parse_prompt(fields, ""), parse_pool_prompt(fields, "")
    assert isinstance(as_prompt, Prompt)
    assert isinstance(as_pool, Prompt)
    assert as_prompt.prompt_id != as_pool.prompt_id
    assert ids_of_row(fields) == {as_prompt.prompt_id, as_pool.prompt_id}


def test_ids_are_given_by_line_or_field() -> None:
    assert ids_of_lines([RIVER, "", f" {LAKE} "], "ids.txt") == {RIVER, LAKE}
    assert ids_of_rows([Row(1, {"prompt_id": LAKE})], "f.jsonl") == {LAKE}


@pytest.mark.parametrize("line", ["Name a river.", RIVER.upper(), f"{RIVER}0"])
def test_a_line_that_is_no_id_is_an_error_with_its_number(line: str) -> None:
    with pytest.raises(InputError, match=r"ids\.txt: line 2 has no prompt and no prompt id"):
        ids_of_lines([RIVER, line], "ids.txt")


def test_a_row_that_names_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="row 3 has no prompt"):
        ids_of_rows([Row(3, {"text": "Name a river."})], "f.jsonl")
    with pytest.raises(InputError, match="line 1 is invalid"):
        ids_of_rows([BadRow(1, "no JSON")], "f.jsonl")


def test_withdrawn_rows_are_in_no_batch_and_no_exam() -> None:
    river, lake = (parse_prompt({"prompt": f"Name a {what}."}, "") for what in ("river", "lake"))
    assert isinstance(river, Prompt)
    assert isinstance(lake, Prompt)
    rows = batch_rows([river, lake, UnpairedLabel(river, "Rhine", True)], {RIVER})
    assert rows.prompts == [lake]
    assert rows.row_counts.rejected == {"withdrawn": 2}
    pair = {"prompt": "Name a river.", "chosen": "Rhine", "rejected": "?"}
    exam = read_exam([("f", [Row(1, pair), Row(2, {"prompt": "Name a lake."})])], None, {RIVER})
    assert [prompt.prompt_id for prompt in exam.prompts] == [LAKE]
    assert exam.rejected == {"withdrawn": 1}
    assert read_held_out_pairs([Row(1, pair)], "f", withdrawn={RIVER}).rejected == {"withdrawn": 1}


def test_rows_with_known_prompts_do_not_count_as_new() -> None:
    rows = [Row(1, {"prompt": "Name a river."}), Row(2, {"prompt": "Name a lake."})]
    assert inspect_rows(rows, "f", SeenRows(prompts={RIVER})).num_not_new == 1
    assert inspect_rows(rows, "f", SeenRows(withdrawn={RIVER})).num_not_new == 1
    assert inspect_rows(rows, "f").num_not_new == 0
