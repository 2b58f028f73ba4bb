"""The page of rounds: what it says, and what it leaves out."""

import re
from typing import Any

import pytest

from pvar.pool_variance import PoolVariance
from pvar.round_rules import RoundResult, RoundsEnd, RoundsResult
from tasks.report.rounds_page import render_rounds


def pool(mean: float | None) -> PoolVariance:
    quantiles = () if mean is None else tuple(mean * part for part in (0.2, 0.5, 0.9, 1.5, 2.0))
    share = None if mean is None else 0.5
    return PoolVariance(
        num_prompts=0 if mean is None else 1208,
        scales=(1.0,),
        mean=mean,
        quantiles=quantiles,
        share_above=share,
        saturated_share=share,
    )


def ended(number: int, mean: float | None, **figures: Any) -> RoundResult:
    nothing: dict[str, Any] = dict.fromkeys(RoundResult.model_fields)
    known = {
        "number": number,
        "run": f"2026-{number}",
        "start": "<b>bold</b>",
        "source": "pool.jsonl",
        "pool": pool(mean),
        "num_selected": 604,
        "gate_passed": True,
        "promoted": True,
        "replaced": False,
        "version": 10 + number,
        "seconds": 61.0,
    }
    return RoundResult.model_validate(nothing | known | figures)


RATES = {
    **dict(zip(("win_rate", "win_rate_lower", "win_rate_upper"), (0.6, 0.5, 0.7), strict=True)),
    **dict(zip(("first_win_rate", "first_win_rate_lower"), (0.8, 0.75), strict=True)),
    "first_win_rate_upper": 0.85,
    "ability": 0.31,
    "kl_since_first": 4.25,
}
END = RoundsEnd("pvar", "the mean PVar of the pool is 0.02")


def render(*rounds: RoundResult, **state: Any) -> str:
    return render_rounds(RoundsResult(name="demo", model_name="pvar", rounds=rounds, **state))


def text(page: str) -> str:
    """What a reader sees, without figures."""
    shown = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", shown))


def test_all_figures_of_each_round_are_on_the_page() -> None:
    failed = {"gate_passed": False, "promoted": False}
    page = render(ended(1, 0.1, **RATES), ended(2, 0.02, **RATES, **failed), end=END)
    assert page == render(ended(1, 0.1, **RATES), ended(2, 0.02, **RATES, **failed), end=END)
    for name in ("pvar", "shares", "win-rate", "ability", "kl"):
        assert f"rounds-{name}-" in page
    shown = text(page)
    assert "Ended : 1 of 2 rounds promoted a model. The mean PVar of the pool is 0.02." in shown
    assert "0.02 20 %" in shown  # the second round's share of the first's PVar
    assert "failed version 12" in shown
    assert "60 % 50 % – 70 %" in shown
    assert "4.25" in shown
    assert "<b>bold" not in page
    assert "<script" not in page


def test_what_was_not_measured_has_no_figure_and_no_column() -> None:
    page = render(ended(1, 0.1))
    assert "rounds-pvar-" in page
    assert not any(f"rounds-{name}-" in page for name in ("win-rate", "ability", "kl"))
    assert "Against the first" not in text(page)
    assert "Not finished : 1 of 1 rounds promoted a model so far." in text(page)


def test_a_pool_without_pvar_is_missing_and_not_zero() -> None:
    page = render(ended(1, None), end=END)
    assert "rounds-pvar-" not in page
    assert "missing missing missing missing 604 missing" in text(page)


@pytest.mark.parametrize("rounds", [(), (ended(1, 0.1),)])
def test_waiting_is_said_first(rounds: tuple[RoundResult, ...]) -> None:
    waiting = "round 2 waits for approval of pvar version 1; to go on: pvar approve pvar 1"
    shown = text(render(*rounds, waiting=waiting))
    assert f"promoted a model so far. R{waiting[1:]}." in shown
    assert ("No round has ended yet." in shown) == (not rounds)
