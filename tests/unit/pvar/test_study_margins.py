"""Held-out margins of a study: means by hand, thirds by PVar, and the pairs that all have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.study_certificate import margin_table
from pvar.study_config import SettingSweep, StudyConfig
from pvar.study_margins import HeldOutMargins, tabulate_margins, thirds

PVAR = {"a": 0.2, "b": 0.01, "c": 0.1}


def measured(end: dict[str, float], steps: tuple[int, ...] = (0, 4)) -> HeldOutMargins:
    """A training whose margins go from 0 to `end` at once."""
    table = np.array([[0.0] * len(end), *[list(end.values())] * (len(steps) - 1)])
    return HeldOutMargins(steps, tuple(end), table, PVAR)


RANDOM = [measured({"a": 1, "b": 2, "c": 3, "d": 10}), measured({"d": 0, "c": 3, "b": 4, "a": 3})]


def test_means_and_ranges_are_over_trainings_of_means_over_pairs() -> None:
    (row,) = tabulate_margins(StudyConfig(), {"random": RANDOM})
    assert (row.cell, row.num_trainings, row.steps) == ("random", 2, (0, 4))
    # Means of the trainings: (1 + 2 + 3 + 10)/4 = 4 and (3 + 4 + 3 + 0)/4 = 2.5.
    assert row.curves["all"] == (4, (0, 3.25), (0, 2.5), (0, 4))
    # One pair a third; d has no PVar.
    assert row.num_without_pvar == 1
    assert row.curves["low"] == (1, (0, 3), (0, 2), (0, 4))  # b
    assert row.curves["middle"] == (1, (0, 3), (0, 3), (0, 3))  # c
    assert row.curves["high"] == (1, (0, 2), (0, 1), (0, 3))  # a


def test_arms_are_shown_on_the_pairs_that_all_of_them_measured() -> None:
    """Of one value of the sweep: c is too long for a training of `top@1`."""
    study = StudyConfig(sweep=SettingSweep(key="train.beta", values=(1, 2)))
    without_c = measured({"a": 5, "b": 5, "d": 5})
    rows = tabulate_margins(
        study, {"random@1": RANDOM, "top@1": [*RANDOM, without_c], "top@2": RANDOM}
    )
    assert {row.cell: row.curves["all"].num_pairs for row in rows} == {
        "random@1": 3, "top@1": 3, "top@2": 4,
    }  # fmt: skip


def test_trainings_of_other_lengths_are_cut_to_the_least() -> None:
    longer = measured({"a": 1.0}, steps=(0, 6, 12))
    (row,) = tabulate_margins(StudyConfig(), {"top": [longer, measured({"a": 3.0})]})
    assert row.steps == (0, 5)
    assert row.curves["all"].mean == (0, 2)


def test_nothing_measured_is_no_row() -> None:
    nothing = HeldOutMargins((), (), np.empty((0, 0)), {})
    assert tabulate_margins(StudyConfig(), {}) == []
    assert tabulate_margins(StudyConfig(), {"top": [nothing]}) == []


@given(st.dictionaries(st.text(), st.sampled_from([0.0, 0.1, 0.2]) | st.floats(0, 0.25)))
def test_thirds_are_a_partition_by_pvar(pvar: dict[str, float]) -> None:
    groups = list(thirds(pvar).values())
    assert sorted(prompt for group in groups for prompt in group) == sorted(pvar)
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    values = [pvar[prompt] for group in groups for prompt in group]
    assert values == sorted(values)


def test_the_page_says_on_how_many_pairs() -> None:
    page = margin_table(tabulate_margins(StudyConfig(), {"random": RANDOM}))
    assert (
        "| random | 2 | 3.250 (2.500 to 4.000), 4 pairs | 3.000 (2.000 to 4.000), 1 pairs |" in page
    )
    assert "(1 prompts without PVar are in no third)" in page
    (row,) = tabulate_margins(StudyConfig(), {"top": [measured({"a": 1.0})]})
    assert set(row.curves) - {"all"}  # one pair is in one of the thirds
    assert "| – |" in margin_table([row])
    assert row.curves["all"].mean[-1] == pytest.approx(1)
