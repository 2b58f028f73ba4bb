"""Ability: what counts as a right answer, and how surely two models differ."""

import math

import numpy as np
import pytest

from pvar.errors import InputError
from pvar.evaluation.ability import ability_change, is_right, share_right

NAN = math.nan


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("Paris", "paris"),
        ("It is PARIS, of course!", "Paris"),
        ("**New\n York**", "new york"),
        ("Straße", "STRASSE"),  # case folding, not lower case
        ("\uff11\uff12 eggs", "12"),  # full-width digits: NFKC
        ("3 + 4 = 7.", "7"),
        ("It costs $1,000,000.", "1000000"),
        ("It is \N{MINUS SIGN}5 °C.", "-5"),
        ("10-5", "5"),  # a minus between numbers is no sign
        ("pi is 3.14", "3.14"),
        ("one half is \u00bd.", "1/2"),
        ("a blue-green sea", "green"),
        ("the cat's whiskers", "cat"),
    ],
)
def test_an_accepted_string_counts_however_it_is_written(answer: str, accepted: str) -> None:
    assert is_right(answer, [accepted])


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("112", "12"),
        ("120", "12"),
        ("12.5", "12"),
        ("0.5", "5"),
        ("0,5", "5"),
        ("1/5", "5"),
        ("-5", "5"),
        ("5", "-5"),
        ("12000", "12"),
        ("12,000", "12"),
        ("1st", "1"),
        ("scattered", "cat"),
        ("York is new", "new york"),
        ("", "12"),
        ("...", "12"),
    ],
)
def test_what_only_contains_it_does_not_count(answer: str, accepted: str) -> None:
    assert not is_right(answer, [accepted])


def test_any_of_the_accepted_strings_will_do() -> None:
    assert is_right("Two of them.", ["2", "two"])
    assert not is_right("Three of them.", ["2", "two"])


def test_a_questions_share_is_over_its_answers_and_missing_without_one() -> None:
    assert share_right(["7", "seven", "8", "17"], ["7", "seven"]) == 0.5
    assert share_right([""], ["7"]) == 0.0  # an empty answer is an answer
    assert math.isnan(share_right([], ["7"]))


def test_figures_are_over_the_questions_that_both_answered() -> None:
    # Left are the first three: ours (1 + 0 + ½)/3, theirs (1 + 1 + 1)/3; the difference is −½.
    # Counted as zero, the unanswered ones would have made it (1.5 − 4)/5.
    found = ability_change([1, 0, 0.5, NAN, NAN], [1, 1, 1, 1, NAN], confidence=0.95, seed=0)
    assert found.num_questions == 3
    assert found.ability == pytest.approx(0.5)
    assert found.opponent_ability == 1.0
    assert found.change == pytest.approx(-0.5)
    assert -1 <= found.ci_lower < -0.5 < found.ci_upper <= 0


@pytest.mark.parametrize(("num_questions", "reach"), [(5, 0.52), (17, 0.20), (36, 0.10)])
def test_equal_answers_to_a_few_questions_do_not_rule_a_loss_out(
    num_questions: int, reach: float
) -> None:
    # 1 − 0.025^(1/n): 0.5218, 0.1951 and 0.0974.
    same = np.ones(num_questions)
    found = ability_change(same, same, confidence=0.95, seed=0)
    assert found.change == 0.0
    assert found.ci_lower == pytest.approx(-reach, abs=0.005)
    assert found.ci_upper == pytest.approx(reach, abs=0.005)


@pytest.mark.parametrize("shares", [[], [NAN, NAN]])
def test_without_an_answered_question_every_figure_is_missing(shares: list[float]) -> None:
    *figures, num_questions = ability_change(shares, [1.0] * len(shares), confidence=0.9, seed=0)
    assert num_questions == 0
    assert all(map(math.isnan, figures))


def test_different_questions_are_not_compared() -> None:
    with pytest.raises(InputError, match="there are 2 and 1"):
        ability_change([1, 1], [1], confidence=0.95, seed=0)
