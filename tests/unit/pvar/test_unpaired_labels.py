"""Unpaired labels become pairs, and no row is lost without a name."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pvar.digest import prompt_id
from pvar.prompt_rows import parse_prompt_or_label
from pvar.records import Message, Prompt
from pvar.unpaired_labels import UnpairedLabel, join_labels


def label(question: str, completion: str, *, is_good: bool) -> UnpairedLabel:
    messages = (Message("user", question),)
    return UnpairedLabel(Prompt(prompt_id(messages), messages, "train", "t"), completion, is_good)


def rules(*labels: UnpairedLabel) -> list[str | None]:
    """The rule that rejected each row; None for the row whose prompt is kept."""
    by_place = {each.place: each.rule for each in join_labels(labels).rejected}
    return [by_place.get(place) for place in range(len(labels))]


def test_a_good_and_a_bad_answer_to_one_prompt_are_a_pair() -> None:
    rows = (label("Hi", "Go away.", is_good=False), label("Hi", "Hello.", is_good=True))
    (prompt,) = join_labels(rows).prompts
    assert (prompt.chosen, prompt.rejected) == ("Hello.", "Go away.")
    assert rules(*rows) == ["joined_in_pair", None]


def test_an_answer_whose_prompt_has_no_other_label_is_rejected_by_name() -> None:
    rows = (
        label("Hi", "Hello.", is_good=True),
        label("Hi", "Welcome.", is_good=True),
        label("Who?", "Nobody.", is_good=False),
    )
    assert join_labels(rows).prompts == []
    assert rules(*rows) == ["unpaired_label"] * 3


def test_what_says_nothing_or_both_is_not_paired() -> None:
    rows = (
        label("Hi", "Hello.", is_good=True),
        label("Hi", "Hello. ", is_good=True),
        label("Hi", "Well.", is_good=True),
        label("Hi", "Well.", is_good=False),
        label("Hi", "Go away.", is_good=False),
    )
    (prompt,) = join_labels(rows).prompts
    assert (prompt.chosen, prompt.rejected) == ("Hello.", "Go away.")
    assert rules(*rows) == [
        None,
        "repeated_label",
        "contradictory_label",
        "contradictory_label",
        "joined_in_pair",
    ]


ROWS = st.lists(
    st.builds(
        lambda question, answer, good: label(question, answer, is_good=good),
        st.sampled_from("ab"),
        st.sampled_from("uvwxyz"),
        st.booleans(),
    )
)


@given(ROWS, st.randoms(use_true_random=False))
def test_every_row_is_accounted_for_in_any_order(
    rows: list[UnpairedLabel], rng: random.Random
) -> None:
    joined = join_labels(rows)
    assert len(joined.prompts) + len(joined.rejected) == len(rows)
    assert len({each.place for each in joined.rejected}) == len(joined.rejected)
    shuffled = rng.sample(rows, len(rows))
    again = join_labels(shuffled)
    assert set(again.prompts) == set(joined.prompts)
    assert Counter(e.rule for e in again.rejected) == Counter(e.rule for e in joined.rejected)


def test_the_forms_of_an_unpaired_label() -> None:
    question = [{"role": "user", "content": "Hi"}]
    answer = [{"role": "assistant", "content": "Hello."}]
    for fields in (
        {"prompt": "Hi", "completion": "Hello.", "label": True},
        {"prompt": question, "completion": answer, "label": 1},
    ):
        assert parse_prompt_or_label(fields, "t") == label("Hi", "Hello.", is_good=True)._replace(
            prompt=label("Hi", "", is_good=True).prompt._replace(source="t")
        )
    for fields, reason in (
        ({"prompt": "Hi", "completion": "Hello.", "label": "good"}, "label_not_true_or_false"),
        ({"prompt": "Hi", "completion": 7, "label": True}, "answer_not_text"),
        ({"prompt": "Hi", "completion": " ", "label": True}, "empty_completion"),
        ({"completion": "Hello.", "label": True}, "no_prompt"),
    ):
        assert parse_prompt_or_label(fields, "t") == reason


def test_a_preference_a_question_and_a_bare_prompt_are_no_unpaired_labels() -> None:
    further = {"completion": "Hello.", "label": True}
    for fields in (
        {"prompt": "Hi", "chosen": "Hello.", "rejected": "No.", **further},
        {"prompt": "3 + 4?", "answer": "7", **further},
        {"prompt": "Hi", "label": True},
        {"prompt": "Hi", "completion": "Hello.", "label": None},
    ):
        assert isinstance(parse_prompt_or_label(fields, "t"), Prompt)
