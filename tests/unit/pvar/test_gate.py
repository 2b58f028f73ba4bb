"""The gate passes on evidence alone: not on a tie, a lucky draw, a missing figure, or an error."""

import math

import pytest

from pvar.config import PromoteConfig
from pvar.gate import GateFigures, decide

GATE = PromoteConfig(min_win_rate=0.5, min_coverage=0.95, min_ended_share=0.5)
GOOD = GateFigures(win_rate_lower=0.55, coverage=0.99, ended_share=0.9)


def failed_checks(figures: GateFigures) -> list[str]:
    decision = decide(figures, GATE)
    failed = [check.name for check in decision.checks if not check.passed]
    assert decision.passed == (failed == [])
    return failed


def test_all_checks_met_pass() -> None:
    assert failed_checks(GOOD) == []


def test_a_tie_does_not_pass() -> None:
    # At the bound is not above it.
    assert failed_checks(GOOD._replace(win_rate_lower=0.5)) == ["win_rate_lower"]
    assert failed_checks(GOOD._replace(win_rate_lower=math.nextafter(0.5, 1))) == []


def test_shares_may_be_at_their_bound() -> None:
    assert failed_checks(GOOD._replace(coverage=0.95, ended_share=0.5)) == []
    assert failed_checks(GOOD._replace(coverage=math.nextafter(0.95, 0))) == ["coverage"]


@pytest.mark.parametrize("name", GateFigures._fields)
def test_a_missing_figure_fails_its_check(name: str) -> None:
    # Missing is neither zero nor fine.
    assert failed_checks(GOOD._replace(**{name: math.nan})) == [name]


def test_nothing_judged_fails_even_the_easiest_gate() -> None:
    easiest = PromoteConfig(min_win_rate=0, min_coverage=0.01, min_ended_share=0)
    nothing = GateFigures(math.nan, 0.0, math.nan)
    decision = decide(nothing, easiest)
    assert not decision.passed
    assert [check.passed for check in decision.checks] == [False, False, False]


def test_every_check_is_reported_with_its_value_and_bound() -> None:
    decision = decide(GOOD, GATE)
    assert [(check.name, check.value, check.bound) for check in decision.checks] == [
        ("win_rate_lower", 0.55, 0.5),
        ("coverage", 0.99, 0.95),
        ("ended_share", 0.9, 0.5),
    ]
