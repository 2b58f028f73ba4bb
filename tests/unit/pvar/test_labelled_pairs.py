"""Labelled pairs of a file, and those of the held-out prompts of a source."""

from pvar.labelled_pairs import held_out_pairs, read_held_out_pairs
from pvar.records import BadRow, Message, Prompt, Row


def test_rows_with_labels_are_held_out_and_others_are_counted_by_reason() -> None:
    rows = [
        Row(1, {"prompt": "a", "chosen": "yes", "rejected": "no"}),
        Row(2, {"prompt": "b"}),
        BadRow(3, "broken"),
        Row(4, {"prompt": "a", "chosen": "so", "rejected": "yes"}),
        Row(5, {"prompt": "c", "chosen": "yes"}),
        Row(6, {"prompt": "d", "chosen": "up", "rejected": "down"}),
        Row(7, {"prompt": "e", "chosen": "up", "rejected": "down"}),
        Row(8, {"prompt": "e", "chosen": " down", "rejected": "up"}),
    ]
    found = read_held_out_pairs(rows, "file")
    assert [(row.chosen, row.rejected, row.split, row.source) for row in found.prompts] == [
        ("yes", "no", "eval", "file"),
        ("up", "down", "eval", "file"),
    ]
    assert found.rejected == {
        "chosen_without_rejected": 1,
        "contradictory_label": 2,
        "duplicate": 1,
        "no_labels": 1,
        "unreadable_line": 1,
    }


def test_of_rows_that_contradict_each_other_the_majority_counts() -> None:
    up, down = (
        {"prompt": "a", "chosen": one, "rejected": other}
        for one, other in (("up", "down"), ("down", "up"))
    )
    found = read_held_out_pairs([Row(n, row) for n, row in enumerate((down, up, up))], "file")
    assert [row.chosen for row in found.prompts] == ["up"]
    assert found.rejected == {"contradictory_label": 1, "duplicate": 1}


def test_only_held_out_prompts_with_labels_have_pairs() -> None:
    asked = (Message("user", "?"),)
    prompts = [
        Prompt("a", asked, "eval", "x", "yes", "no", 5.0, 1.0),
        Prompt("b", asked, "train", "x", "yes", "no"),
        Prompt("c", asked, "eval", "x"),
    ]
    assert held_out_pairs(prompts) == [("a", asked, "yes", "no", None, None)]
