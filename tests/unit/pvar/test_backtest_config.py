"""What follows from historical files, schedule and policies, before anything is replayed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pvar.backtest_config import (
    BacktestConfig,
    HistoryFile,
    arrival_times,
    date_in_name,
    plan_policy,
    policy_config,
    simulated_looks,
)

START = datetime(2026, 3, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def config(**policies: dict[str, Any]) -> BacktestConfig:
    return BacktestConfig.model_validate({"batches": "history", "policies": policies})


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("2026-03-01.jsonl", datetime(2026, 3, 1, tzinfo=UTC)),
        ("exports/pairs-2026-03-01T0930.parquet", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("2026-03-01_09:30 b.jsonl", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("2026-03-01_2500.jsonl", datetime(2026, 3, 1, tzinfo=UTC)),  # a running number
        ("2026-03-01_0061.jsonl", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2025-12-31/2026-03-01.jsonl", datetime(2026, 3, 1, tzinfo=UTC)),  # the last one counts
        ("2026-13-45.jsonl", None),
        ("12026-03-011.jsonl", None),  # a longer number is no date
        ("monday.jsonl", None),
    ],
)
def test_the_date_in_a_name(key: str, expected: datetime | None) -> None:
    assert date_in_name(key) == expected


def test_names_count_only_if_all_files_have_a_date() -> None:
    modified = datetime(2026, 9, 9, 1, 2, 3, 456789, tzinfo=UTC)
    dated = [("2026-03-01.jsonl", modified), ("2026-03-02.jsonl", modified)]
    assert arrival_times(dated) == ([day(0), day(1)], "name")
    whole = modified.replace(microsecond=0)
    assert arrival_times([*dated, ("b.jsonl", modified)]) == ([whole] * 3, "modified")


def test_retraining_looks_on_arrival_and_by_schedule_until_the_last_file_is_due() -> None:
    # The last file arrives on day 3 and is due 5 days later: the schedule ends on day 8.
    looks = simulated_looks(
        [day(3), day(0)], every_days=2, on_arrival=True, max_days_between_runs=5
    )
    assert looks == (day(0), day(2), day(3), day(4), day(6), day(8))
    by_schedule = simulated_looks(
        [day(3), day(0)], every_days=2, on_arrival=False, max_days_between_runs=None
    )
    assert by_schedule == (day(0), day(2), day(4))
    on_arrival = simulated_looks(
        [day(3), day(0), day(3)], every_days=None, on_arrival=True, max_days_between_runs=5
    )
    assert on_arrival == (day(0), day(3))


@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=20),
    st.sampled_from([0.5, 1, 7, None]),
    st.booleans(),
    st.sampled_from([None, 3, 30]),
)
def test_every_file_is_looked_at(
    days: list[int], every_days: float | None, on_arrival: bool, most: float | None
) -> None:
    looks = simulated_looks(
        map(day, days),
        every_days=every_days if on_arrival else every_days or 1,
        on_arrival=on_arrival,
        max_days_between_runs=most,
    )
    assert list(looks) == sorted(set(looks))
    assert looks[-1] >= day(max(days))
    assert looks[0] == day(min(days))


def test_a_policy_changes_the_retraining_or_its_pipeline() -> None:
    tried = config(
        a={"replay": {"share": 0.5}, "select.strategy": "random"},
        b={"pipeline.promote.min_win_rate": 0.6},
    )
    replayed = policy_config(tried, "a")
    assert replayed.replay is not None
    assert (replayed.replay.share, replayed.pipeline.select.strategy) == (0.5, "random")
    strict = policy_config(tried, "b")
    assert (strict.replay, strict.pipeline.promote.min_win_rate) == (None, 0.6)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"a": {"select.stratgy": "top"}}, "policy a: the configuration has no setting"),
        ({"a": {"promote.min_win_rate": 2}}, "policy a: pipeline.promote.min_win_rate"),
        ({"a": {}, "b": {}}, "a and b are the same settings"),
        ({"a": {"evaluate.opponent": "org/m"}}, "policy a: evaluate.opponent is org/m"),
        ({}, "at least 1"),
    ],
)
def test_policies_that_cannot_be_replayed_are_refused(
    policies: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**policies)


def test_a_schedule_that_never_looks_is_refused() -> None:
    with pytest.raises(ValidationError, match="would never look"):
        BacktestConfig(batches="history", every_days=None, on_arrival=False)


def test_approval_is_replayed_as_the_gate_decides_and_said() -> None:
    files = [HistoryFile(key="a", sha256="0", arrives_at=day(0))]
    tried = config(asked={"promote.mode": "approval"}, never={"promote.mode": "never"})
    asked, never = (plan_policy(tried, name, files) for name in tried.policies)
    assert (asked.asks_person, asked.config.pipeline.promote.mode) == (True, "automatic")
    assert (never.asks_person, never.config.pipeline.promote.mode) == (False, "never")


def test_a_plan_is_the_same_on_other_hardware_and_another_one_with_other_files() -> None:
    files = [HistoryFile(key="a", sha256="0", arrives_at=day(0))]
    tried = config(
        a={},
        slow={"runtime.responses_per_shard": 7},
        more={"replay": {}},
    )
    a, slow, more = (plan_policy(tried, name, files).identity for name in tried.policies)
    assert a == slow
    other = [files[0].model_copy(update={"sha256": "1"})]
    assert len({a, more, plan_policy(tried, "a", other).identity}) == 3
