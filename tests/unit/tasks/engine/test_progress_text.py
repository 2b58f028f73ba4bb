"""The line that says how far work is."""

import pytest

from tasks.engine.progress_text import Snapshot, duration_text, rate_text, to_text


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (
            Snapshot("", "rows", 432, 864, 140, per_second=3.1, left_seconds=139.6),
            "432 of 864 rows (50 %), 3.1 rows/s, about 2 min 20 s left",
        ),
        (Snapshot("", "rows", 0, 864, 30), "0 of 864 rows after 30 s"),
        (Snapshot("", "rows", 432, 864, 30), "432 of 864 rows (50 %) after 30 s"),
        (
            Snapshot("", "rows", 432, 864, 30, shards_done=2, num_shards=5),
            "432 of 864 rows (50 %, 2 of 5 shards) after 30 s",
        ),
        (
            Snapshot("", "rows", 0, 864, 30, shards_done=0, num_shards=5),
            "0 of 864 rows (0 of 5 shards) after 30 s",
        ),
        (
            Snapshot("", "rows", 0, 864, 30, shards_done=0, num_shards=1),
            "0 of 864 rows after 30 s",
        ),
        (Snapshot("", "rows", 863, 864, 30), "863 of 864 rows (99 %) after 30 s"),
        (Snapshot("", "rows", 864, 864, 60, per_second=14), "864 of 864 rows (100 %), 14 rows/s"),
        (
            Snapshot("reading", "rows", 900, None, 30, per_second=30),
            "reading: 900 rows, 30 rows/s",
        ),
        (Snapshot("reading", "rows", 0, None, 30), "reading: 0 rows after 30 s"),
        (Snapshot("loading", "", 0, None, 90), "loading, 1 min 30 s so far"),
        (Snapshot("started", "", 0, None, 0), "started"),
    ],
)
def test_a_line_has_counts_speed_and_time_left_as_far_as_they_are_known(
    now: Snapshot, line: str
) -> None:
    assert to_text(now) == line


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (250.4, "250 rows/s"),
        (1.0, "1.0 rows/s"),
        (0.5, "30 rows/min"),
        (1 / 60, "1.0 rows/min"),
        (1 / 1800, "2.0 rows/h"),
        (1 / 7200, "0.5 rows/h"),
    ],
)
def test_a_slow_speed_is_given_per_minute_or_hour(per_second: float, text: str) -> None:
    assert rate_text(per_second, "rows") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
