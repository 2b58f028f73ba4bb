"""Which incoming files are good enough, and that a row survives being written again."""

from pvar.incoming_rows import (
    SeenRows,
    batch_rows,
    id_of,
    inspect_rows,
    parse_row,
    seen_labels,
    to_fields,
)
from pvar.records import BadRow, Prompt, Row
from pvar.row_counts import RowCounts
from pvar.unpaired_labels import UnpairedLabel

GOOD = {"prompt": "Say hello"}


def rows(num_good: int, *bad: Row | BadRow) -> list[Row | BadRow]:
    return [*(Row(number, GOOD) for number in range(1, num_good + 1)), *bad]


def test_a_tenth_of_bad_rows_is_accepted_and_accounted_for() -> None:
    report = inspect_rows(rows(9, BadRow(10, "not JSON")), "a.jsonl")
    assert report.refusal is None
    assert report.row_counts == RowCounts(rows_in=10, rows_out=9, rejected={"unreadable_line": 1})


def test_more_than_a_tenth_of_bad_rows_turns_the_file_away_with_the_first_reason() -> None:
    report = inspect_rows(rows(8, BadRow(9, "not JSON: x"), Row(10, {"text": "?"})), "a.jsonl")
    assert report.refusal == (
        "2 of its 10 rows are bad {'no_prompt': 1, 'unreadable_line': 1}, more than 10%; "
        "the first is row 9: not JSON: x"
    )


def test_a_file_of_bad_rows_only_is_turned_away() -> None:
    assert inspect_rows([Row(1, {"text": "?"})], "a.jsonl").refusal is not None


def test_a_file_without_rows_is_turned_away() -> None:
    assert inspect_rows([], "a.jsonl").refusal == "it holds no rows"


def test_a_preference_written_again_is_the_same_prompt() -> None:
    row = Row(
        1,
        {
            "prompt": [
                {"role": "system", "content": "Be brief"},
                {"role": "user", "content": "Hi"},
            ],
            "chosen": [{"role": "assistant", "content": "Hello"}],
            "rejected": "Go away",
            "score_chosen": 9.5,
            "score_rejected": float("nan"),
            "chosen_ratings": [5, 4],
        },
    )
    first = parse_row(row, "a.jsonl")
    assert isinstance(first, Prompt)
    again = parse_row(Row(7, to_fields(first)), "a.jsonl")
    # NaN has no JSON form: the score is missing afterwards, as it was before.
    assert again == first._replace(rejected_score=None)
    assert first.chosen == "Hello"


def test_the_source_that_a_row_names_is_written_again_and_no_other_field_is_replaced() -> None:
    first = parse_row(Row(1, {**GOOD, "dataset": "web"}), "a.jsonl", "dataset")
    assert isinstance(first, Prompt)
    assert first.source == "web"
    assert parse_row(Row(2, to_fields(first, "dataset")), "b.jsonl", "dataset") == first
    assert to_fields(first, "prompt") == to_fields(first)
    assert "dataset" not in to_fields(first)


def test_a_question_written_again_is_the_same_question() -> None:
    # Without its answers it would be a prompt like any other, and could be trained on.
    row = Row(1, {"prompt": "Three and four?", "answer": ["7", "seven"]})
    first = parse_row(row, "a.jsonl")
    assert isinstance(first, Prompt)
    assert first.is_question
    assert parse_row(Row(1, to_fields(first)), "a.jsonl") == first


def test_a_prompt_without_answers_is_written_without_them() -> None:
    prompt = parse_row(Row(1, GOOD), "a.jsonl")
    assert isinstance(prompt, Prompt)
    assert to_fields(prompt) == {"prompt": [{"role": "user", "content": "Say hello"}]}


def test_a_new_label_of_an_earlier_prompt_is_new() -> None:
    """A corrected file, and answers of people to prompts of an earlier batch."""

    def parsed(**fields: object) -> Prompt | UnpairedLabel:
        row = parse_row(Row(1, {"prompt": "Why?", **fields}), "file")
        assert not isinstance(row, str)
        return row

    bare, pair = parsed(), parsed(chosen="Yes.", rejected="No.")
    turned = parsed(chosen="No.", rejected="Yes.")
    good, bad = parsed(completion="Yes.", label=True), parsed(completion="Yes.", label=False)

    def seen(*rows: Prompt | UnpairedLabel) -> SeenRows:
        return SeenRows({id_of(row) for row in rows}, seen_labels(rows))

    assert [seen(bare).has(row) for row in (bare, pair, good)] == [True, False, False]
    assert [seen(pair).has(row) for row in (bare, pair, turned)] == [True, True, False]
    assert [seen(pair).has(row) for row in (good, bad)] == [True, False]  # half of the pair
    assert [seen(good).has(row) for row in (bare, good, bad, pair)] == [True, True, False, False]
    assert SeenRows(withdrawn={id_of(pair)}).has(pair)


def test_pairs_of_opposite_preferences_are_no_labels_of_a_batch() -> None:
    """One as a pair, the other as two halves; equal answers contradict nothing."""
    fields = [
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        {"prompt": "Hi", "completion": "b", "label": True},
        {"prompt": "Hi", "completion": "a", "label": False},
        {"prompt": "Hi", "chosen": "a", "rejected": "c"},
        {"prompt": "Bye", "chosen": "b", "rejected": "a"},
        {"prompt": "Well", "chosen": "a", "rejected": "a"},
    ]
    parsed = [parse_row(Row(number, row), "f") for number, row in enumerate(fields, start=1)]
    found = batch_rows(row for row in parsed if not isinstance(row, str))
    kept = [(row.messages[0].content, row.chosen, row.rejected) for row in found.prompts]
    assert kept == [("Hi", "a", "c"), ("Bye", "b", "a"), ("Well", "a", "a")]
    assert found.row_counts.rejected == {"contradictory_label": 2, "joined_in_pair": 1}
