"""Which rows of a batch are asked and not trained on."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.fresh_pairs import is_fresh, split_fresh
from pvar.incoming_rows import BatchRows, batch_rows
from pvar.records import Message, Prompt
from pvar.row_counts import RowCounts


def prompt(name: str, *, labelled: bool = True, answers: tuple[str, ...] = ()) -> Prompt:
    labels = ("yes", "no") if labelled else (None, None)
    return Prompt(name, (Message("user", name),), "train", "s", *labels, accepted_answers=answers)


def everything(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    return prompts


NAMES = [f"p{number}" for number in range(2000)]


def test_the_share_is_over_prompts_and_a_smaller_one_is_part_of_a_larger_one() -> None:
    tenth, half = ({name for name in NAMES if is_fresh(name, share)} for share in (0.1, 0.5))
    assert tenth < half
    # Four standard deviations of 2000 draws: 4 · √(2000 · 0.1 · 0.9) is 54.
    assert len(tenth) == pytest.approx(200, abs=54)


@given(st.lists(st.sampled_from(NAMES[:50])), st.floats(0.01, 0.99), st.data())
def test_every_row_is_trained_on_or_asked_or_counted(
    names: list[str], share: float, data: st.DataObject
) -> None:
    given_rows = batch_rows(prompt(name, labelled=data.draw(st.booleans())) for name in names)
    split = split_fresh(given_rows, share, everything)
    assert split.rows.row_counts.rows_in == given_rows.row_counts.rows_in
    assert not any(is_fresh(row.prompt_id, share) for row in split.rows.prompts)
    assert all(is_fresh(row.prompt_id, share) for row in split.fresh)
    trained = [row for row in given_rows.prompts if not is_fresh(row.prompt_id, share)]
    assert split.rows.prompts == trained
    asked = {row.prompt_id for row in given_rows.prompts if row.chosen} - {
        row.prompt_id for row in trained
    }
    assert [row.prompt_id for row in split.fresh] == list(
        dict.fromkeys(row.prompt_id for row in given_rows.prompts if row.prompt_id in asked)
    )


def test_what_is_left_out_has_a_reason() -> None:
    fresh = [name for name in NAMES if is_fresh(name, 0.1)][:4]
    other = next(name for name in NAMES if not is_fresh(name, 0.1))
    rows = [
        prompt(fresh[0]),
        prompt(fresh[0]),  # another label of the same prompt
        prompt(fresh[1]),
        prompt(fresh[2], labelled=False),
        prompt(fresh[3], labelled=False, answers=("4",)),  # an ability question
        prompt(other),
    ]
    counts = RowCounts(rows_in=7, rows_out=6, rejected={"unpaired_label": 1})
    split = split_fresh(
        BatchRows(rows, counts), 0.1, lambda prompts: [p for p in prompts if p != rows[2]]
    )
    assert [row.prompt_id for row in split.rows.prompts] == [fresh[3], other]
    assert split.fresh == [rows[0]]
    assert split.left_out == tuple(sorted(fresh[:3]))
    assert split.rows.row_counts == RowCounts(
        rows_in=7,
        rows_out=2,
        rejected={
            "fresh_exam": 1,
            "fresh_like_earlier": 1,
            "fresh_repeated": 1,
            "fresh_unlabelled": 1,
            "unpaired_label": 1,
        },
    )
