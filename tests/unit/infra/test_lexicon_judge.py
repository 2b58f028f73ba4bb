"""The AFINN judge: the warmer tone per word wins, and length alone wins nothing.

Valences from AFINN-en-165: good 3, bad −3, love 3, wonderful 4, terrible −3.
"""

import math

import pytest

from infra.judges.lexicon_judge import LexiconJudge
from pvar.digest import canonical_json
from pvar.records import Comparison


def preference(first: str, second: str, scale: float | None = None) -> float | None:
    [verdict] = LexiconJudge(scale).judge([Comparison("p", (), first, second)])
    return verdict.preference


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("It was bad.", "It was good.", 1.0),  # −3/3 < 3/3
        ("It was good.", "It was bad.", 0.0),
        ("It was good.", "We love it.", 0.5),  # 3/3 = 3/3
        ("A wooden chair.", "The open door was green.", 0.5),  # 0/3 = 0/5
        ("It was good.", "It was wonderful.", 1.0),  # 3/3 < 4/3
    ],
)
def test_the_more_positive_answer_wins_and_equal_ones_tie(
    first: str, second: str, expected: float
) -> None:
    assert preference(first, second) == expected


def test_saying_everything_twice_gains_nothing() -> None:
    # The sums are 3 and 6 (30 for ten times), the means all 3/3.
    assert preference("It was good.", "It was good. It was good.") == 0.5
    assert preference("It was good.", "It was good. " * 10) == 0.5


def test_a_long_answer_does_not_win_by_its_sum() -> None:
    # Sums 4 < 6, means 4/2 = 2 > 6/8.
    assert preference("Simply wonderful!", "It was good and the rest was good.") == 0.0


@pytest.mark.parametrize(
    ("first", "second", "scale", "log_odds"),
    [
        ("It was bad.", "It was good.", 1.0, 2.0),  # 3/3 − −3/3
        ("It was bad.", "It was good.", 4.0, 0.5),
        ("It was good.", "It was bad.", 4.0, -0.5),
        ("It was good.", "It was wonderful.", 0.5, 2 / 3),  # (4/3 − 3/3)/0.5
        ("It was good.", "We love it.", 0.5, 0.0),
    ],
)
def test_with_a_scale_the_preference_is_sigmoid_of_the_difference(
    first: str, second: str, scale: float, log_odds: float
) -> None:
    assert preference(first, second, scale) == pytest.approx(1 / (1 + math.exp(-log_odds)))


def test_a_tiny_scale_overflows_nothing() -> None:
    assert preference("It was bad.", "It was good.", 5e-324) == 1.0


@pytest.mark.parametrize("scale", [None, 0.3])
def test_swapping_the_answers_swaps_the_verdict(scale: float | None) -> None:
    texts = ["good", "bad day", "a chair", "", "terrible and wonderful"]

    for a in texts:
        for b in texts:
            forward, backward = preference(a, b, scale), preference(b, a, scale)
            assert forward is not None
            assert backward is not None
            assert forward + backward == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("scale", [None, 100.0])
@pytest.mark.parametrize("silent", ["", "  ", "..."])
def test_an_answer_without_words_loses_even_to_bad_news(silent: str, scale: float | None) -> None:
    assert preference("It was terrible.", silent, scale) == 0.0
    assert preference(silent, "It was terrible.", scale) == 1.0
    assert preference(silent, "", scale) == 0.5


def test_verdicts_keep_the_order_of_the_comparisons() -> None:
    comparisons = [Comparison("p1", (), "bad", "good"), Comparison("p2", (), "good", "bad")]

    verdicts = LexiconJudge().judge(comparisons)

    assert [(v.prompt_id, v.preference) for v in verdicts] == [("p1", 1.0), ("p2", 0.0)]


def test_the_identity_can_enter_a_digest_and_names_the_combination() -> None:
    identity = dict(LexiconJudge().identity)

    # Verdicts that are kept are found by it: without a scale it stays as it is.
    assert canonical_json(identity) == canonical_json(
        {"kind": "afinn", "lexicon": "AFINN-en-165", "combination": "mean_per_word"}
    )
    assert dict(LexiconJudge(2).identity) == {**identity, "scale": 2.0}
