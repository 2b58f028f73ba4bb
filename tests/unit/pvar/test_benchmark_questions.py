"""A benchmark's questions joined with its baseline's answers: what is graded, what refused."""

from collections.abc import Mapping
from typing import Any

import pytest

from pvar.errors import InputError
from pvar.evaluation.benchmark_questions import (
    BenchmarkQuestions,
    join_alpaca_eval,
    join_arena_hard,
)
from pvar.evaluation.file_rows import RowFile
from pvar.evaluation.style import Version
from pvar.records import Message, Row

Fields = Mapping[str, Any]


def file(name: str, *rows: Fields) -> RowFile:
    return RowFile(name, [Row(number, row) for number, row in enumerate(rows, start=1)])


# --- AlpacaEval ---


def instruction(text: str, **more: Any) -> Fields:
    return {"instruction": text, "dataset": "koala", **more}


def output(text: str, **more: Any) -> Fields:
    return {"instruction": text, "output": f"baseline on {text}", "generator": "gpt4", **more}


def alpaca_eval(questions: list[Fields], outputs: list[Fields]) -> BenchmarkQuestions:
    return join_alpaca_eval(file("eval.json", *questions), file("outputs.json", *outputs))


def test_instructions_are_joined_with_the_baselines_answers_whatever_their_order() -> None:
    joined = alpaca_eval(
        [instruction("one", index=8), instruction("two", index=2, dataset="vicuna")],
        [output("three"), output("two"), output("one")],
    )
    assert [prompt.messages for prompt in joined.prompts] == [
        (Message("user", "one"),),
        (Message("user", "two"),),
    ]
    assert {prompt.split for prompt in joined.prompts} == {"eval"}
    assert [
        (row.question_id, row.number, row.category, row.baseline, row.baseline_answer)
        for row in joined.questions
    ] == [
        ("8", 8, "koala", "gpt4", "baseline on one"),
        ("2", 2, "vicuna", "gpt4", "baseline on two"),
    ]
    assert [row.prompt_id for row in joined.questions] == [p.prompt_id for p in joined.prompts]
    assert (joined.num_not_wanted, joined.ungraded) == (0, {})


# --- Arena-Hard ---


def question(uid: str, category: str | None = "hard_prompt", text: str | None = None) -> Fields:
    return {"uid": uid, "category": category, "prompt": text or f"Question {uid}"}


def answer(uid: str, model: str = "o3-mini", **more: Any) -> Fields:
    content = {"answer": f"{model} on {uid}"}
    return {"uid": uid, "model": model, "messages": [{"role": "a", "content": content}], **more}


def arena_hard(
    questions: list[Fields],
    *baselines: list[Fields],
    version: Version = "v2.0",
    categories: tuple[str, ...] = (),
) -> BenchmarkQuestions:
    files = [file(f"baseline-{n}.jsonl", *rows) for n, rows in enumerate(baselines, start=1)]
    return join_arena_hard(file("question.jsonl", *questions), files, version, categories)


MIXED = [question("h1"), question("c1", "creative_writing"), question("h2")]


def test_each_category_has_a_baseline_of_its_own() -> None:
    joined = arena_hard(
        MIXED,
        [answer("h1", metadata={"token_len": 7}), answer("h2")],
        [answer("c1", "gemini")],
    )
    assert [
        (row.question_id, row.number, row.category, row.baseline, row.baseline_tokens)
        for row in joined.questions
    ] == [
        ("h1", 0, "hard_prompt", "o3-mini", 7),
        ("c1", 1, "creative_writing", "gemini", None),
        ("h2", 2, "hard_prompt", "o3-mini", None),
    ]
    assert joined.questions[1].baseline_answer == "gemini on c1"
    assert joined.ungraded == {}


def test_a_category_without_a_baseline_is_not_graded_and_is_counted() -> None:
    joined = arena_hard(MIXED, [answer("h1"), answer("h2")])
    assert [row.question_id for row in joined.questions] == ["h1", "h2"]
    assert [row.number for row in joined.questions] == [0, 1]
    assert joined.ungraded == {"creative_writing": 1}
    assert joined.num_not_wanted == 0


def test_only_the_categories_that_are_asked_for_are_graded() -> None:
    joined = arena_hard(
        MIXED, [answer("h1"), answer("h2"), answer("c1")], categories=("creative_writing",)
    )
    assert [row.question_id for row in joined.questions] == ["c1"]
    assert (joined.num_not_wanted, joined.ungraded) == (2, {})


def test_questions_without_a_category_are_graded_together() -> None:
    joined = arena_hard([question("a", None), question("b", None)], [answer("a"), answer("b")])
    assert [row.category for row in joined.questions] == [None, None]


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (
            lambda: alpaca_eval([instruction("one"), instruction("two")], [output("one")]),
            r"^outputs\.json: there is no baseline's answer to 1 of 2 questions of eval\.json, "
            r"such as 'two'; give files of the same version$",
        ),
        (
            lambda: alpaca_eval([instruction("one")], [{"instruction": "one", "output": "x"}]),
            r"^outputs\.json: there is no column generator, the name of the baseline model; add it",
        ),
        (
            lambda: alpaca_eval(
                [instruction("one", index=1), instruction("two", index=1)],
                [output("one"), output("two")],
            ),
            r"^eval\.json: the column index has the same number twice",
        ),
        (
            lambda: alpaca_eval([], []),
            r"^eval\.json: there are no questions; give the benchmark's evaluation set$",
        ),
        (
            lambda: arena_hard(MIXED, [answer("h1")]),
            r"^baseline-1\.jsonl: there is no baseline's answer to 1 of 2 questions of "
            r"question\.jsonl, such as 'Question h2'; give files of the same version$",
        ),
        (
            lambda: arena_hard(MIXED, [answer("z")]),
            r"^baseline-1\.jsonl: there is no answer to any .*question\.jsonl; give answers of the",
        ),
        (
            lambda: arena_hard(MIXED, [answer("h1"), answer("h2")], [answer("h1", "gemini")]),
            r"^baseline-2\.jsonl: question h1 is also answered by the baseline o3-mini; give one",
        ),
        (
            lambda: arena_hard(MIXED, [answer("h1")], categories=("hard_prompt", "coding")),
            r"^question\.jsonl: there is no category 'coding'; it has creative_writing, hard",
        ),
        (
            lambda: arena_hard(MIXED, [answer("h1")], version="v0.1"),
            r"^question\.jsonl: category 'creative_writing' does not belong to Arena-Hard v0\.1, "
            r"which has arena-hard-v0\.1; set the benchmark's version, or give its question file$",
        ),
        (
            lambda: arena_hard(
                [question("a", text="Same?"), question("b", text="Same?")],
                [answer("a"), answer("b")],
            ),
            r"^question\.jsonl: questions a and b have the same text; keep one of them$",
        ),
        (
            lambda: arena_hard([], [answer("a")]),
            r"^question\.jsonl: there are no questions; give the benchmark's evaluation set$",
        ),
    ],
)
def test_files_that_do_not_belong_together(join: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        join()
