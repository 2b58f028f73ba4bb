"""Arena-Hard's two parsers: the stored scores of real judge texts, and each rule by hand."""

import pytest
from benchmark_data import ARENA_HARD, needs_shared_data, read_jsonl

from pvar.evaluation.arena_hard_judge import (
    OWN_ANSWER_FIRST,
    game_messages,
    parse_verdict,
    wants_continuation,
)


@needs_shared_data
def test_every_real_judge_text_parses_to_its_stored_score() -> None:
    rows = read_jsonl(ARENA_HARD / "v0.1" / "judge_outputs.jsonl.gz")
    parsed = [parse_verdict(row["judgment"], "v0.1") for row in rows]

    assert len(rows) == 556
    assert parsed == [row["score"] for row in rows]
    assert parsed.count(None) == 2


@pytest.mark.parametrize(
    ("judgment", "verdict"),
    [
        ("My final verdict is tie: [[A=B]].", "A=B"),
        ("[[A>B]] … to repeat, [[A>B]]", "A>B"),
        ("First [[A>B]], no: [[B>A]]", None),  # contradiction
        ("My verdict is A>B", None),
        ("My verdict is [A>B]", None),  # single brackets are v2.0's
        ("[[a>b]]", None),  # case matters
        ("[[]] and [[B>>A]]", "B>>A"),
        ("[[A>>A]]", "A>>A"),  # returned; no game has it
        ("", None),
    ],
)
def test_v01_wants_one_label_in_double_brackets(judgment: str, verdict: str | None) -> None:
    assert parse_verdict(judgment, "v0.1") == verdict


@pytest.mark.parametrize(
    ("judgment", "verdict"),
    [
        ("First [[A>B]], no: [[B>A]]", "B>A"),  # the last one counts
        ("[[a>>b]]", "A>>B"),
        ("My verdict is [B>A]", "B>A"),
        ("[[A>B]] and in single brackets [B>A]", "A>B"),  # double brackets go first
        ("[[A<B]]", "A<B"),
        ("Option [C]", None),
        ("", None),
    ],
)
def test_v20_takes_the_last_label_double_brackets_first(judgment: str, verdict: str | None) -> None:
    assert parse_verdict(judgment, "v2.0") == verdict


def test_line_separators_inside_a_text_do_not_end_it() -> None:
    assert parse_verdict("so:\u2028[[A>B]]\u2029", "v0.1") == "A>B"


def test_only_a_text_without_any_label_is_continued() -> None:
    assert wants_continuation("I cannot decide")
    assert not wants_continuation("First [[A>B]], no: [[B>A]]")


def test_the_baseline_is_assistant_a_in_the_first_game_only() -> None:
    first = game_messages("Q", "old answer", "new answer", game=1)[-1].content
    second = game_messages("Q", "old answer", "new answer", game=2)[-1].content

    assert first.index("old answer") < first.index("new answer")
    assert second.index("new answer") < second.index("old answer")


def test_braces_in_an_answer_stay_text() -> None:
    content = game_messages("Q", "{answer_b} {0} {", "other", game=1)[-1].content

    assert "{answer_b} {0} {" in content


@pytest.mark.parametrize("label", ["A>>B", "A>B", "A=B", "B>A", "B>>A"])
def test_our_wording_offers_labels_that_both_parsers_read(label: str) -> None:
    assert f"[[{label}]]" in OWN_ANSWER_FIRST.system
    assert parse_verdict(f"[[{label}]]", "v0.1") == parse_verdict(f"[[{label}]]", "v2.0") == label
