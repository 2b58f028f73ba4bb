"""Totals and sentences of a backtest."""

from datetime import UTC, datetime
from typing import Any

from pvar.backtest_result import (
    BacktestedPolicy,
    BacktestResult,
    SimulatedBatch,
    SimulatedRate,
    backtest_remarks,
    policy_story,
    total_of_policy,
    worse_promotions,
)


def rate(value: float) -> SimulatedRate:
    return SimulatedRate(rate=value, lower=value - 0.1, upper=value + 0.1)


def batch(number: int, fate: Any, first: float | None = None, **changes: Any) -> SimulatedBatch:
    return SimulatedBatch(
        **{
            "number": number,
            "made_at": datetime(2026, 3, number, tzinfo=UTC),
            "files": (f"{number}.jsonl",),
            "num_rows": 10,
            "num_labelled": None,
            "num_replayed": 0,
            "why_made": ("enough",),
            "fate": fate,
            "version": number if fate in ("promoted", "not promoted") else None,
            "curve": ("exam", "judge"),
            "against_first": None if first is None else rate(first),
            **changes,
        }
    )


def policy(*batches: SimulatedBatch, **changes: Any) -> BacktestedPolicy:
    return BacktestedPolicy(
        **{
            "name": "configured",
            "settings": {},
            "folder": "/home",
            "asks_person": False,
            "num_looks": 9,
            "num_looks_done": 9,
            "batches": batches,
            **changes,
        }
    )


def result(*policies: BacktestedPolicy, **changes: Any) -> BacktestResult:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return BacktestResult(
        **{
            "batches": "history",
            "time_source": "name",
            "num_files": 3,
            "first_at": at,
            "last_at": at,
            "policies": policies,
            **changes,
        }
    )


def test_totals_are_sums_of_what_is_known() -> None:
    totals = total_of_policy(
        policy(
            batch(1, "promoted", num_tokens=100, seconds=1.5),
            batch(2, "failed"),
            batch(3, "not promoted", num_tokens=20, num_replayed=7, seconds=0.5),
        )
    )
    assert totals.fates == {"promoted": 1, "failed": 1, "not promoted": 1}
    assert (totals.num_rows, totals.num_replayed) == (30, 7)
    assert (totals.num_tokens, totals.seconds, totals.usd) == (120, 2.0, None)
    assert totals.final is not None
    assert totals.final.number == 1
    assert total_of_policy(policy()).final is None


def test_a_promotion_that_lowered_the_win_rate_against_the_first_model_is_named() -> None:
    found = worse_promotions(
        policy(
            batch(1, "promoted", 0.6),
            batch(2, "not promoted", 0.2),  # was never in use
            batch(3, "promoted", 0.55),
            batch(4, "promoted", 0.7),
            batch(5, "promoted", 0.1, curve=("other exam", "judge")),  # not comparable
            batch(6, "promoted", None),  # not measured
        )
    )
    assert [(before.number, after.number) for before, after in found] == [(1, 3)]


def test_the_story_says_what_became_of_the_batches() -> None:
    told = "\n".join(
        policy_story(
            policy(
                batch(1, "promoted", 0.6),
                batch(2, "set aside", why=("OutOfMemoryError: 3 GB",)),
                batch(3, "held"),
                asks_person=True,
                waiting=("batch 3 waits for its labels",),
                quarantined=("incoming/x.jsonl: 3 of 4 rows are bad",),
                unused_files=("late.jsonl",),
            )
        )
    )
    assert "3 batches, made from 2026-03-01 to 2026-03-03: 1 promoted, 1 set aside, 1 held." in told
    assert "a person would have been asked before each promotion" in told
    assert "version 1, of batch 1; against the first model it wins 60.0% (50.0% to 70.0%)" in told
    assert "does not decide in a backtest: batch 3 waits for its labels" in told
    assert "Batch 2, set aside: OutOfMemoryError: 3 GB" in told
    assert "incoming/x.jsonl: 3 of 4 rows are bad" in told
    assert "1 file is in no batch at the end: late.jsonl." in told


def test_ability_that_all_promotions_together_lost_is_named() -> None:
    lost = batch(2, "promoted", 0.9, ability_change_since_first=-0.525)
    story = policy_story(policy(batch(1, "promoted", 0.6), lost))
    assert any(each.startswith("It answers 52.5 points fewer") for each in story)
    kept = batch(2, "promoted", 0.9, ability_change_since_first=0.05)
    assert not any("fewer" in each for each in policy_story(policy(kept)))


def test_the_story_of_nothing() -> None:
    assert policy_story(policy()) == ["No batch was made."]
    (first, *_) = policy_story(policy(num_looks_done=3))
    assert first.startswith("Not complete: 3 of 9 looks")
    (first, *_) = policy_story(policy(num_looks_done=3, error="the disk is full"))
    assert first == "The replay ended early: the disk is full"


def test_policies_on_other_exams_are_said_not_to_be_comparable() -> None:
    one, other = policy(batch(1, "promoted")), policy(batch(1, "promoted", curve=("b", "judge")))
    assert not any("one exam" in each for each in backtest_remarks(result(one, one)))
    assert any("one exam" in each for each in backtest_remarks(result(one, other)))
    assert backtest_remarks(result(one)) == []
    (remark,) = backtest_remarks(result(one, time_source="modified"))
    assert "modification times" in remark
