"""Rows of pools as they are published: what is the prompt, what are the answers and scores."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.answer_rows import PoolAnswer, parse_answers, parse_pool_prompt
from pvar.records import Message, Prompt

# The columns of openbmb/UltraFeedback; texts and numbers are made up.
ULTRAFEEDBACK: dict[str, Any] = {
    "source": "evol_instruct",
    "instruction": "Name a river.",
    "models": ["alpaca-7b", "bard", "gpt-4", "ultralm-13b"],
    "completions": [
        {
            "annotations": {"helpfulness": {"Rating": "4", "Rationale": "Helpful."}},
            "custom_system_prompt": "You answer truthfully.",
            "model": model,
            "principle": "truthfulness",
            "response": response,
            "critique": "…",
            "fine-grained_score": aspects,
            "overall_score": overall,
        }
        for model, response, aspects, overall in (
            ("alpaca-7b", "The Nile.", 4.25, 8.0),
            ("bard", "Water.", 1.5, 10.0),
            ("gpt-4", "The Nile, in Africa.", 5.0, 10.0),
            ("ultralm-13b", "The Rhine.", 4.0, None),
        )
    ],
    "correct_answers": ["None"],
    "incorrect_answers": ["None"],
}
# princeton-nlp's data for SimPO.
SIMPO: dict[str, Any] = {
    "prompt_id": "ab12",
    "prompt": "Name a river.",
    "all_generated_responses": ["The Nile.", "Water."],
    "all_rm_scores": [0.15, -0.02],
    "chosen": [
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": "The Nile."},
    ],
    "rejected": [
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": "Water."},
    ],
}
NECTAR: dict[str, Any] = {
    "prompt": "\n\nHuman: Hello.\n\nAssistant: Hello!\n\nHuman: Name a river.\n\nAssistant: ",
    "answers": [
        {"answer": "The Nile.", "model": "gpt-4", "rank": 1.0},
        {"answer": "Water.", "model": "llama-2-7b-chat", "rank": 7.0},
    ],
    "turns": 2,
    "num_responses": 2,
    "source": ["lmsys-chat-1m"],
    "good_natured": True,
}
PLAIN = {"prompt": "Name a river.", "responses": ["The Nile.", "Water."]}


def scores(fields: dict[str, Any]) -> list[tuple[str, float | None]]:
    answers = parse_answers(fields, "p")
    assert not isinstance(answers, str), answers
    assert [answer.answer_index for answer in answers] == list(range(len(answers)))
    return [(answer.text, answer.score) for answer in answers]


def messages(fields: dict[str, Any]) -> list[tuple[str, str]]:
    prompt = parse_pool_prompt(fields, "file")
    assert isinstance(prompt, Prompt), prompt
    return [(message.role, message.content) for message in prompt.messages]


def test_ultrafeedback_has_four_answers_and_an_unchecked_ten_is_missing() -> None:
    """A 10 whose aspects have a mean of 1.5 was a 1 (argilla-io/notus #7)."""
    assert messages(ULTRAFEEDBACK) == [("user", "Name a river.")]
    assert parse_answers(ULTRAFEEDBACK, "p") == (
        PoolAnswer("p", 0, "The Nile.", 8.0, None),
        PoolAnswer("p", 1, "Water.", None, "overall_score_bug"),
        PoolAnswer("p", 2, "The Nile, in Africa.", 10.0, None),
        PoolAnswer("p", 3, "The Rhine.", None, "no_score"),
    )


def test_simpo_has_scores_beside_the_answers_and_its_own_pair() -> None:
    assert scores(SIMPO) == [("The Nile.", 0.15), ("Water.", -0.02)]
    prompt = parse_pool_prompt(SIMPO, "file")
    assert isinstance(prompt, Prompt)
    assert (prompt.chosen, prompt.rejected) == ("The Nile.", "Water.")


def test_nectar_ranks_its_answers_and_its_prompt_is_a_transcript() -> None:
    assert scores(NECTAR) == [("The Nile.", -1.0), ("Water.", -7.0)]
    assert messages(NECTAR) == [
        ("user", "Hello."),
        ("assistant", "Hello!"),
        ("user", "Name a river."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Name a river.",
        "Say:\n\nHuman: a\n\nAssistant: ",
        "\n\nHuman: a",
        "\n\nHuman: a\n\nAssistant: begun",
        "\n\nHuman: a\n\nHuman: b\n\nAssistant: ",
    ],
)
def test_a_prompt_that_is_no_whole_transcript_stays_a_text(text: str) -> None:
    assert messages({**NECTAR, "prompt": text}) == [("user", text)]
    assert messages({**PLAIN, "prompt": NECTAR["prompt"]}) == [("user", NECTAR["prompt"])]


@pytest.mark.parametrize("name", ["rewards", "scores"])
def test_plain_rows_may_have_scores(name: str) -> None:
    assert scores(PLAIN) == [("The Nile.", None), ("Water.", None)]
    assert scores({**PLAIN, name: [2, None]}) == [("The Nile.", 2.0), ("Water.", None)]
    assert scores({**PLAIN, name: [2, float("nan")]})[1] == ("Water.", None)
    assert scores({**PLAIN, name: None})[0] == ("The Nile.", None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": "a"}, "no_answers"),
        ({**PLAIN, "responses": None}, "no_answers"),
        ({**PLAIN, "responses": "The Nile."}, "answer_not_text"),
        ({**PLAIN, "responses": ["The Nile.", 7]}, "answer_not_text"),
        ({**PLAIN, "responses": ["The Nile."]}, "too_few_answers"),
        ({**ULTRAFEEDBACK, "completions": []}, "too_few_answers"),
        ({**ULTRAFEEDBACK, "completions": ["a", "b"]}, "answer_not_text"),
        ({**ULTRAFEEDBACK, "completions": [{"model": "a"}, {"model": "b"}]}, "answer_not_text"),
        ({**PLAIN, "rewards": [1.0]}, "scores_do_not_match_answers"),
        ({**PLAIN, "rewards": 1.0}, "scores_do_not_match_answers"),
        ({**PLAIN, "rewards": [1, 2], "scores": [1, 2]}, "scores_do_not_match_answers"),
        ({**PLAIN, "rewards": [1.0, "high"]}, "score_not_a_number"),
        ({**PLAIN, "rewards": [1.0, True]}, "score_not_a_number"),
        ({**NECTAR, "answers": [{"answer": "a", "rank": "first"}] * 2}, "score_not_a_number"),
    ],
)
def test_other_rows_are_rejected_for_a_reason(fields: dict[str, Any], reason: str) -> None:
    assert parse_answers(fields, "p") == reason


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["answer", "response", "rank", "overall_score"]), inner)
    ),
    max_leaves=8,
)
NAMES = ["prompt", "instruction", "completions", "answers", "responses", "rewards", "scores"]


@given(st.dictionaries(st.sampled_from([*NAMES, "all_generated_responses"]), VALUES))
def test_no_row_is_half_read(fields: dict[str, Any]) -> None:
    """Either a reason, or answers that are texts, each with a finite score or a reason."""
    parse_pool_prompt(fields, "file")
    answers = parse_answers(fields, "p")
    if not isinstance(answers, str):
        assert len(answers) >= 2
        assert all(isinstance(answer.text, str) for answer in answers)
        assert all((answer.score is None) == (answer.reason is not None) for answer in answers)
        json.dumps([answer.score for answer in answers], allow_nan=False)


def test_the_message_of_a_plain_conversation_stays_as_it_is() -> None:
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    prompt = parse_pool_prompt({**PLAIN, "prompt": conversation}, "file")
    assert isinstance(prompt, Prompt)
    assert prompt.messages == (Message("system", "Be brief."), Message("user", "Hi"))


def test_an_instruction_with_an_input_is_not_the_whole_prompt() -> None:
    """Alpaca's form. Without one, or null and empty, the instruction is the prompt."""
    assert parse_pool_prompt({"instruction": "Add.", "input": "1, 2"}, "file") == (
        "input_not_supported"
    )
    alone = parse_pool_prompt({"instruction": "Add."}, "file")
    for nothing in (None, ""):
        assert parse_pool_prompt({"instruction": "Add.", "input": nothing}, "file") == alone
