"""Which earlier rows are trained on again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pvar.digest import prompt_id
from pvar.records import Message, Prompt
from pvar.replay import EarlierRow, ReplayConfig, choose_replayed


def row(name: str, batch: int, pvar: float | None = None, *, answer: str = "") -> EarlierRow:
    messages = (Message("user", name),)
    accepted = (answer,) if answer else ()
    prompt = Prompt(prompt_id(messages), messages, "train", "f", accepted_answers=accepted)
    return EarlierRow(prompt, batch, pvar)


def names(rows: list[EarlierRow]) -> list[str]:
    return [each.prompt.messages[0].content for each in rows]


TEN = [row(f"prompt {number}", 1 + number // 4, number / 40) for number in range(10)]


def test_without_an_amount_every_row_is_replayed_once() -> None:
    chosen = choose_replayed([*TEN, *TEN[:3]], (), ReplayConfig())
    assert sorted(names(chosen)) == sorted(names(TEN))


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 12), st.integers(1, 12))
def test_a_smaller_amount_is_part_of_a_larger_one_whatever_the_order(
    numbers: list[int], small: int, more: int
) -> None:
    rows = [row(str(number), 1 + number % 5) for number in numbers]
    of_small = choose_replayed(rows, (), ReplayConfig(count=small))
    of_large = choose_replayed(rows[::-1], (), ReplayConfig(count=small + more))
    assert of_small == of_large[: len(of_small)]
    assert len(of_small) == min(small, len(set(numbers)))


@pytest.mark.parametrize(("share", "count"), [(0.1, 1), (0.25, 3), (0.3, 3), (1.0, 10)])
def test_a_share_is_rounded_up(share: float, count: int) -> None:
    assert len(choose_replayed(TEN, (), ReplayConfig(share=share))) == count


def test_newer_batches_or_higher_pvar_come_first() -> None:
    newest = choose_replayed(TEN, (), ReplayConfig(count=6, order="newest"))
    assert [each.batch for each in newest] == [3, 3, 2, 2, 2, 2]
    unmeasured = row("unmeasured", 9)
    highest = choose_replayed([unmeasured, *TEN], (), ReplayConfig(order="pvar"))
    assert [each.pvar for each in highest] == [*(n / 40 for n in range(9, -1, -1)), None]


def test_of_a_prompt_that_came_twice_the_newer_row_is_replayed() -> None:
    old, new = row("again", 1), row("again", 3)
    assert choose_replayed([new, old], (), ReplayConfig()) == [new]


def test_prompts_of_the_new_batch_and_questions_are_left_out() -> None:
    taken = {TEN[0].prompt.prompt_id}
    chosen = choose_replayed([*TEN, row("Who?", 1, answer="me")], taken, ReplayConfig())
    assert sorted(names(chosen)) == sorted(names(TEN[1:]))


def test_two_amounts_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"count 3 and share 0\.5; give one of them"):
        ReplayConfig(count=3, share=0.5)
