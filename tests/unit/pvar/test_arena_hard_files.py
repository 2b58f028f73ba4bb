"""Arena-Hard's files in the forms of v0.1 and v2.0."""

from collections.abc import Mapping
from typing import Any

import pytest

from pvar.errors import InputError
from pvar.evaluation.arena_hard import JudgedQuestion
from pvar.evaluation.arena_hard_files import (
    ArenaHardAnswer,
    ArenaHardQuestion,
    read_answers,
    read_categories,
    read_games,
    read_question_texts,
    read_styles,
)
from pvar.evaluation.file_rows import RowFile
from pvar.evaluation.style import StyleCounts
from pvar.records import Row

Fields = Mapping[str, Any]


def file(*rows: Fields) -> RowFile:
    return RowFile("file.jsonl", [Row(number, row) for number, row in enumerate(rows, start=1)])


def test_questions_are_read_in_both_forms() -> None:
    v01 = {
        "question_id": "q1",
        "category": "arena-hard-v0.1",
        "cluster": "ABC",
        "turns": [{"content": "Sort a list."}],
    }
    v20 = {"uid": "q2", "category": "hard_prompt", "subcategory": "coding", "prompt": "Why?"}
    assert read_question_texts(file(v01, v20)) == [
        ArenaHardQuestion("q1", "Sort a list.", "arena-hard-v0.1"),
        ArenaHardQuestion("q2", "Why?", "hard_prompt"),
    ]
    assert read_categories(file(v01, v20)) == {"q1": "arena-hard-v0.1", "q2": "hard_prompt"}


def v20_answer(content: Any, **more: Any) -> Fields:
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": content}]
    return {"uid": "q", "model": "m", "messages": messages, **more}


def v01_answer(turn: Fields) -> Fields:
    return {"question_id": "q", "model_id": "m", "choices": [{"index": 0, "turns": [turn]}]}


@pytest.mark.parametrize(
    ("row", "num_tokens"),
    [
        (v20_answer({"answer": "Because."}, metadata={"token_len": 3}), 3),
        (v20_answer({"answer": "Because."}), None),
        (v20_answer("Because."), None),
        (v20_answer({"answer": "Because.", "thought": "Hm."}), None),
        (v01_answer({"content": "Because.", "token_len": 3}), 3),
        (v01_answer({"content": {"answer": "Because."}}), None),
    ],
)
def test_answers_are_read_in_every_form(row: Fields, num_tokens: int | None) -> None:
    assert read_answers(file(row)) == {"q": ArenaHardAnswer("m", "Because.", num_tokens)}


def test_both_names_of_a_question_are_accepted_and_the_older_one_counts() -> None:
    """The published answers of v2.0 have `uid` alone, some rows of v0.1 have both."""
    row = {**v20_answer("x"), "question_id": "q1", "uid": "q2"}
    assert list(read_answers(file(row))) == ["q1"]


def test_a_null_column_is_one_that_is_not_there() -> None:
    """As Parquet leaves them of files of both versions, and of counts by kind."""
    assert list(read_categories(file({"question_id": None, "uid": "q", "category": None}))) == ["q"]
    counts = {"header_count": {"h1": 1, "h2": None}, "list_count": 2, "bold_count": {"**": 3}}
    rows = file({"model": "m", "uid": "q", "question_id": None, "token_len": 5, **counts})
    assert read_styles([rows]) == {("m", "q"): StyleCounts(5, 1, 2, 3)}


def test_games_are_two_labels_in_order_and_a_missing_one_is_missing() -> None:
    games = [{"score": "A>B", "judgment": {"answer": "…"}}, {"score": None}]
    v20 = {"uid": "q", "model": "m", "baseline": "b", "category": "hard_prompt", "games": games}
    assert read_games(file(v20), None) == [
        JudgedQuestion("q", "m", "b", "hard_prompt", "A>B", None)
    ]
    # v0.1's files do not name their baseline, and the wanted questions' categories count.
    v01 = {"question_id": "q", "model": "m", "games": [None, {"score": "B>>A"}]}
    assert read_games(file(v01), {"q": "x"}) == [
        JudgedQuestion("q", "m", "gpt-4-0314", "x", None, "B>>A")
    ]


def test_styles_are_counts_of_a_table_or_of_the_answer() -> None:
    table = {
        "model": "m", "uid": "a", "token_len": 5, "header_count": {"h1": 1, "h2": 2},
        "list_count": 4, "bold_count": {"**": 0, "__": 1},
    }  # fmt: skip
    answer = v20_answer({"answer": "# One\n- **two**"}, metadata={"token_len": 6})
    assert read_styles([file(table, answer)]) == {
        ("m", "a"): StyleCounts(5, 3, 4, 1),
        ("m", "q"): StyleCounts(6, 1, 1, 1),
    }


def test_styles_are_read_from_the_answers_files_of_v01() -> None:
    """They name the model `model_id` and keep the counts in `conv_metadata`, or have none."""
    counts = {
        "token_len": 5, "header_count": {"h1": 1, "h2": 0},
        "list_count": {"ordered": 2, "unordered": 1}, "bold_count": {"**": 1, "__": 0},
    }  # fmt: skip
    counted = {**v01_answer({"content": "not counted"}), "conv_metadata": counts}
    plain = {**v01_answer({"content": "# One\n- two", "token_len": 6}), "question_id": "r"}
    assert read_styles([file(counted, plain)]) == {
        ("m", "q"): StyleCounts(5, 1, 3, 1),
        ("m", "r"): StyleCounts(6, 1, 1, 0),
    }
    (answer,) = read_answers(file(counted)).values()
    assert answer.num_tokens == 5


def test_a_null_name_of_a_question_is_no_name() -> None:
    """As in a table of both versions, whose rows have all columns."""
    row = {**v20_answer("x"), "question_id": None}
    assert list(read_answers(file(row))) == ["q"]


QUESTION: Fields = {"uid": "q", "category": "hard_prompt", "prompt": "Why?"}
ANSWER = v20_answer("x")
GAMES: Fields = {"uid": "q", "model": "m", "games": [None, None]}


@pytest.mark.parametrize(
    ("read", "rows", "message"),
    [
        (
            read_question_texts,
            [QUESTION, {**QUESTION, "prompt": "Else?"}],
            r"^file\.jsonl, row 2: question q occurs a second time; keep one row per question$",
        ),
        (
            read_question_texts,
            [{"instruction": "x", "dataset": "koala"}],  # of AlpacaEval
            r"row 1: there is no column question_id or uid; the columns are instruction, dataset; ",
        ),
        (
            read_question_texts,
            [{"uid": "q", "turns": []}],
            r"row 1: there is no text of a question in prompt or in turns\[0\]\.content; give Aren",
        ),
        (read_question_texts, [{"uid": 5, "prompt": "x"}], r"row 1: uid is 5; it must be a string"),
        (
            read_answers,
            [ANSWER, ANSWER],
            r"row 2: a second answer to question q; keep one answer per question$",
        ),
        (
            read_answers,
            [ANSWER, {**ANSWER, "uid": "r", "model": "n"}],
            r"^file\.jsonl: there are answers of 2 models \(m, n\); a file must have the answers",
        ),
        (read_answers, [{**ANSWER, "model": None}], r"row 1: model_id is None; it must be a str"),
        (
            read_answers,
            [{"uid": "q", "model": "m", "output": "x"}],
            r"row 1: there is no answer in messages or in choices\[0\]\.turns; give a file of",
        ),
        (
            lambda rows: read_games(rows, {"other": None}),
            [GAMES],
            r"row 1: question q is not among the wanted questions; give files of the same version",
        ),
        (
            lambda rows: read_games(rows, None),
            [GAMES, GAMES],
            r"row 2: question q of m occurs twice; keep one row per model and question$",
        ),
        (
            lambda rows: read_games(rows, None),
            [{**GAMES, "judge": "gpt-4.1"}, {**GAMES, "uid": "r", "judge": "gemini-2.5"}],
            r"^file\.jsonl: there are games of 2 judges \(column judge: gemini-2\.5, gpt-4\.1\); a",
        ),
        (
            lambda rows: read_styles([rows]),
            [{"uid": "q", "token_len": 5}],
            r"row 1: there is no column model or model_id; the columns are uid, token_len; give a",
        ),
        (
            lambda rows: read_styles([rows]),
            [{**ANSWER, "messages": [], "metadata": {"token_len": 5}}],
            r"row 1: there is neither a column header_count nor an answer",
        ),
        (
            lambda rows: read_games(rows, None),
            [{**GAMES, "games": [{"score": "A=B"}]}],
            r"row 1: games must be a list of two, the second with the answers swapped; use null",
        ),
    ],
)
def test_a_file_that_cannot_be_what_it_should(read: Any, rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(file(*rows))
