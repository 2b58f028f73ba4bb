"""Work reports how far it is, at a speed that is its own, for as long as it lasts."""

import contextvars
import logging
import threading
from collections.abc import Iterator

import pytest

from tasks.engine import progress_log
from tasks.engine.progress_log import ProgressLog
from tests.progress import Clock, Watched, watched


@pytest.fixture
def watch() -> Iterator[Watched]:
    with watched() as here:
        yield here


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("progress ")]


def test_it_reports_every_thirty_seconds() -> None:
    assert progress_log.REPORT_SECONDS == 30


def test_work_that_has_completed_nothing_says_what_it_is_at_and_for_how_long(
    watch: Watched,
) -> None:
    with watch.progress() as progress:
        progress.begin("loading")
        watch.after(30, "work: loading, 30 s so far")()
        progress.begin(total=864, unit="rows")
        watch.after(30, "work: 0 of 864 rows after 30 s")()


def test_work_says_how_far_it_is_how_fast_and_how_long_still(watch: Watched) -> None:
    with watch.progress() as progress:
        progress.begin(total=864, unit="rows")
        watch.clock.now = 100
        progress.advance(216)
        # 216 rows in 100 s; the other 648 take 300 s.
        watch.lines.wait_for("work: 216 of 864 rows (25 %), 2.2 rows/s, about 5 min 0 s left")


def test_rows_that_were_complete_before_are_not_speed(watch: Watched) -> None:
    with watch.progress() as progress:
        progress.begin(total=100, unit="rows", done=80)
        watch.after(30, "work: 80 of 100 rows (80 %) after 30 s")()
        progress.skip(10)
        watch.after(20, "work: 90 of 100 rows (90 %) after 50 s")()
        progress.advance(5)
        # 5 rows in 50 s are 6 a minute; as many again take 50 s.
        watch.lines.wait_for("work: 95 of 100 rows (95 %), 6.0 rows/min, about 50 s left")


def test_the_time_before_something_else_began_is_not_part_of_its_speed() -> None:
    clock = Clock()
    progress = ProgressLog("work", clock=clock)
    clock.now = 1000
    progress.begin(total=10, unit="steps")
    clock.now = 1010
    progress.advance(5)
    assert progress.snapshot().per_second == pytest.approx(0.5)


def test_time_left_counts_down_between_portions_and_grows_when_one_is_overdue() -> None:
    clock = Clock()
    progress = ProgressLog("work", clock=clock)
    progress.begin(total=10, unit="rows")

    def left_at(now: float) -> float | None:
        clock.now = now
        return progress.snapshot().left_seconds

    assert left_at(59) is None
    clock.now = 60
    progress.advance()  # a row takes 60 s: nine are left
    assert left_at(60) == pytest.approx(540)
    assert left_at(119) == pytest.approx(540 - 59)
    # At 240 s the second row is overdue for 120 s, and the one that is done counts as 180 s.
    assert left_at(240) == pytest.approx(9 * 180 - 60)


def test_counts_never_go_down() -> None:
    progress = ProgressLog("work", clock=Clock())
    progress.begin(total=10, unit="rows", done=4)
    progress.reach(3)
    assert progress.snapshot().done == 4


def test_a_part_with_a_name_of_its_own_is_reported_instead_of_the_whole(watch: Watched) -> None:
    with watch.progress("whole") as whole:
        with whole.nested("part") as part:
            part.begin("loading")
            watch.after(5, "part: loading, 5 s so far")()
            watch.after(5, "part: loading, 10 s so far")()
            assert not any(line.startswith("whole: started, ") for line in watch.lines.lines)
        watch.after(5, "whole: started, 15 s so far")()


def test_the_thread_ends_with_the_work(watch: Watched) -> None:
    with watch.progress():
        assert threads() == ["progress work"]
    assert threads() == []


def test_the_thread_ends_with_work_that_raises(watch: Watched) -> None:
    with pytest.raises(ValueError, match="out of luck"), watch.progress():
        raise ValueError("out of luck")
    assert threads() == []


def test_records_belong_to_the_run_that_the_work_is_part_of(watch: Watched) -> None:
    run = contextvars.ContextVar("run", default="none")
    seen: list[tuple[str, str]] = []

    class Handler(logging.Handler):  # Prefect's does the same
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((threading.current_thread().name, run.get()))

    handler = Handler()
    logger = logging.getLogger("tasks.engine.progress_log")
    logger.addHandler(handler)
    try:
        run.set("this run")
        with watch.progress():
            watch.after(5, "started, 5 s so far")()
    finally:
        logger.removeHandler(handler)
    assert ("progress work", "this run") in seen
    assert {value for _, value in seen} == {"this run"}
