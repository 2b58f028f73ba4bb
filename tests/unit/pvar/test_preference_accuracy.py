"""Preference accuracy on numbers derived by hand."""

import pytest

from pvar.errors import InputError
from pvar.evaluation.preference_accuracy import (
    LabelLogps,
    PreferenceAccuracy,
    likelihood_accuracy,
    preference_accuracy,
)


def logps(*margins: float, source: str = "s", tokens: tuple[int, int] = (1, 1)) -> list[LabelLogps]:
    """Pairs p0, p1, … whose rejected answer has a log-probability of −10."""
    return [
        LabelLogps(f"p{number}", source, margin - 10, -10.0, *tokens)
        for number, margin in enumerate(margins)
    ]


def accuracies(
    before: list[LabelLogps],
    after: list[LabelLogps],
    reference: list[LabelLogps] | None = None,
    beta: float = 0.1,
) -> list[PreferenceAccuracy]:
    return preference_accuracy(
        before, after, reference, compared_with="b", beta=beta, confidence=0.95, seed=0
    )


def test_shares_and_changes_are_those_derived_by_hand() -> None:
    # Preferred before: yes, no, a tie, no = 1.5 of 4. After: yes, yes, no, no = 2 of 4.
    # Margins grew by +1, +2, −1, +1: the implicit reward prefers 3 of 4, by 0.75 β on average.
    before, after = logps(1, -1, 0, -2), logps(2, 1, -1, -1)
    (found,) = accuracies(before, after, before)
    assert (found.compared_with, found.source) == ("b", None)
    assert (found.num_pairs, found.num_wanted) == (4, 4)
    assert (found.likelihood_before, found.likelihood_after) == (0.375, 0.5)
    assert found.likelihood_change == pytest.approx(0.125)
    assert found.implicit == 0.75
    assert found.implicit_margin_mean == pytest.approx(0.075)
    assert accuracies(before, after, before, beta=1.0)[0].implicit == 0.75
    assert found.likelihood_change_lower is not None
    assert found.likelihood_change_upper is not None
    assert found.likelihood_change_lower < 0.125 < found.likelihood_change_upper


def test_per_token_does_not_favour_the_shorter_answer() -> None:
    # −12 over 6 tokens is −2 a token, −10 over 2 tokens is −5: preferred per token only.
    long_answer = logps(-2, tokens=(6, 2))
    assert likelihood_accuracy(long_answer) == (0.0, 1.0)
    # −12 and −10 over 6 and 5 tokens are both −2 a token: a tie.
    assert likelihood_accuracy(logps(-2, tokens=(6, 5))) == (0.0, 0.5)
    (found,) = accuracies(logps(-2), long_answer)
    assert (found.likelihood_change, found.per_token_change) == (0.0, 1.0)


def test_the_interval_is_that_of_the_paired_change_over_prompts() -> None:
    # All ten change from no to yes. The exact interval of ten equal values 1 ends at
    # 0.025^(1/10) = 0.69150 on the scale of preferences, so at 2 · 0.69150 − 1 for a difference.
    (found,) = accuracies(logps(*[-1] * 10), logps(*[1] * 10), logps(*[-1] * 10))
    assert found.likelihood_change == 1
    assert found.likelihood_change_lower == pytest.approx(2 * 0.025**0.1 - 1)
    assert found.likelihood_change_upper == pytest.approx(1)
    assert found.implicit_lower == pytest.approx(0.025**0.1)
    assert found.implicit_upper == pytest.approx(1)


def test_of_an_untrained_model_the_implicit_accuracy_is_a_half() -> None:
    same = logps(3, -2, 0.5)
    (found,) = accuracies(same, same, same)
    assert (found.implicit, found.implicit_margin_mean) == (0.5, 0.0)
    assert found.likelihood_change == 0


def test_each_source_has_its_own_accuracies_after_those_of_all() -> None:
    def both(*margins: float) -> list[LabelLogps]:
        first, second, third = logps(*margins)
        return [first, second._replace(source="t"), third._replace(source="t")]

    found = accuracies(both(-1, -1, 1), both(1, -1, -1))
    assert [(row.source, row.num_pairs) for row in found] == [(None, 3), ("s", 1), ("t", 2)]
    assert [row.likelihood_change for row in found] == pytest.approx([0, 1, -0.5])


def test_pairs_are_joined_by_prompt_and_those_of_one_model_alone_are_counted() -> None:
    before, after = logps(1, 1, -1), logps(1, -1, 1)[::-1]
    reference = logps(0, 0, 0)
    (found,) = accuracies(before, after[1:], reference)  # without p2
    assert (found.num_pairs, found.num_wanted) == (2, 3)
    assert (found.likelihood_before, found.likelihood_after) == (1.0, 0.5)
    assert accuracies(before, after, reference[:1])[0].num_pairs == 1


def test_without_a_reference_there_is_no_implicit_accuracy() -> None:
    (found,) = accuracies(logps(1), logps(1))
    assert found.likelihood_after == 1
    assert found[-4:] == (None, None, None, None)


def test_without_pairs_every_share_is_missing_and_none_is_zero() -> None:
    (found,) = accuracies([], logps(1))
    assert (found.num_pairs, found.num_wanted) == (0, 1)
    assert set(found[4:]) == {None}
    assert likelihood_accuracy([]) == (None, None)


def test_two_pairs_of_one_prompt_are_refused() -> None:
    with pytest.raises(InputError, match="prompt p0 has two labelled pairs"):
        accuracies(logps(1) + logps(2), logps(1))
