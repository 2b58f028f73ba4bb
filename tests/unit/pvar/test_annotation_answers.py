"""What becomes of people's answers: labels by majority, and a reason for every other answer."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.annotation_answers import (
    PREFERRED,
    PairAnswer,
    Preferred,
    UnusableAnswer,
    label_pairs,
    label_rows,
    parse_answer,
)
from pvar.annotation_queue import QueuedPair
from pvar.prompt_rows import parse_prompt
from pvar.records import Message, Prompt

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
PAIR = QueuedPair(
    "pair", "prompt", (Message("user", "Why?"),), "web", "So.", "Because.", "pvar", 0.1, 2.0, 1.0
)


def answer(preferred: Preferred, annotator: str = "ann", hours: int = 0) -> PairAnswer:
    return PairAnswer("pair", preferred, annotator, NOON + timedelta(hours=hours))


def outcomes(*answers: PairAnswer | UnusableAnswer) -> list[str]:
    return [vote.outcome for vote in label_pairs([PAIR], answers).votes]


def test_a_label_is_a_row_that_retraining_reads_with_who_and_when() -> None:
    found = label_pairs([PAIR], [answer("2", "bob", 1), answer("2", "ann", 2), answer("1", "eve")])
    assert [vote.outcome for vote in found.votes] == ["used", "used", "outvoted"]
    (row,) = label_rows(found.labels)
    prompt = parse_prompt(row, "file")
    assert isinstance(prompt, Prompt)
    assert (prompt.chosen, prompt.rejected, prompt.messages) == ("Because.", "So.", PAIR.messages)
    assert row["annotator"] == "bob"  # the first of those who agree
    assert row["annotated_at"] == "2026-11-26T13:00:00+00:00"
    assert (row["num_agreeing"], row["num_answers"], row["source"]) == (2, 3, "web")


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        (["1"], ["used"]),
        (["1", "2"], ["no_majority", "no_majority"]),
        (["1", "1", "2"], ["used", "used", "outvoted"]),
        (["1", "tie"], ["no_majority", "tie"]),  # half is not more than half
        (["1", "1", "tie"], ["used", "used", "tie"]),
        (["1", "skipped"], ["used", "skipped"]),  # who skips does not vote
        (["tie", "tie"], ["tie", "tie"]),
    ],
)
def test_more_than_half_of_the_annotators_decide(
    votes: list[Preferred], expected: list[str]
) -> None:
    assert outcomes(*(answer(vote, f"a{n}") for n, vote in enumerate(votes))) == expected


def test_of_several_answers_of_an_annotator_the_latest_counts_whatever_the_order() -> None:
    late, early = answer("2", hours=5), answer("1", hours=1)
    assert outcomes(late, early) == ["used", "superseded"]
    assert outcomes(early, late) == ["superseded", "used"]
    assert outcomes(early, answer("skipped", hours=3)) == ["superseded", "skipped"]


def test_an_answer_to_another_queue_is_counted() -> None:
    other = answer("1")._replace(pair_id="other")
    found = label_pairs([PAIR], [other, UnusableAnswer("pair", "no_time")])
    assert found.labels == ()
    assert found.row_counts.rejected == {"no_time": 1, "not_in_queue": 1}


@given(st.lists(st.tuples(st.sampled_from(PREFERRED), st.sampled_from("abcd"), st.integers(0, 9))))
def test_every_answer_has_one_outcome_and_labels_rest_on_a_majority(
    given_answers: list[tuple[Preferred, str, int]],
) -> None:
    found = label_pairs([PAIR], [answer(*each) for each in given_answers])
    assert found.row_counts.rows_in == len(given_answers)  # rows add up, or RowCounts refuses
    assert found.row_counts.rows_out == sum(label.num_agreeing for label in found.labels)
    assert all(2 * label.num_agreeing > label.num_answers for label in found.labels)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "not_in_queue"),
        ({"preferred": 3}, "no_choice"),
        ({"preferred": True}, "no_choice"),
        ({"annotator": " "}, "no_annotator"),
        ({"annotator": True}, "no_annotator"),
        ({"annotator": None}, "no_annotator"),
        ({"time": "yesterday"}, "no_time"),
        ({"time": None}, "no_time"),
    ],
)
def test_an_answer_that_cannot_be_read_has_a_reason(change: dict[str, object], reason: str) -> None:
    row = {"id": "pair", "preferred": 1, "annotator": 7, "time": "2026-11-26T12:00:00Z"}
    assert parse_answer(row) == PairAnswer("pair", "1", "7", NOON)
    unusable = parse_answer({**row, **change})
    assert isinstance(unusable, UnusableAnswer)
    assert unusable.reason == reason


def test_a_null_preference_is_a_skipped_pair_and_a_time_without_zone_is_utc() -> None:
    row = {"id": "pair", "preferred": None, "annotator": "ann", "time": "2026-11-26 12:00"}
    assert parse_answer(row) == answer("skipped")
