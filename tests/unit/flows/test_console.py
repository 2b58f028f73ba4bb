"""What is seen of progress: lines in a plain log, bars on a terminal; never both."""

import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console
from rich.live import Live

from flows.announcement import announce_stage
from flows.console import show_progress
from flows.terminal import Bars
from tasks.engine.progress_log import ProgressLog
from tests.progress import Clock

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HALF = "54 of 108 prompts (50 %), 54 prompts/min, about 1 min 0 s left"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its variables are set for this file alone, and Prefect's handlers for no logger of ours."""
    monkeypatch.setenv("PREFECT_LOGGING_EXTRA_LOGGERS", "")
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@contextmanager
def half_done() -> Iterator[None]:
    """A stage that has made 54 of 108 prompts in 60 s."""
    clock = Clock()
    with ProgressLog("sample/ab12", clock=clock) as progress:
        progress.begin(total=108, unit="prompts")
        clock.now = 60
        progress.advance(54)
        progress.report()
        yield


def show(*, on_terminal: bool) -> str:
    """All that is written while a stage makes half of its rows and logs a line."""
    file = io.StringIO()
    with show_progress(Console(file=file, force_terminal=on_terminal, width=140)):
        announce_stage("stage 2 of 9: sample")
        logging.getLogger("tasks.engine.stage").info("sample/ab12: shard 0 is made")
        with half_done():
            pass
    return ESCAPES.sub("", file.getvalue())


def test_a_plain_log_has_a_line_with_the_time_of_day() -> None:
    lines = show(on_terminal=False).splitlines()
    time_of_day = r"\d\d:\d\d:\d\d tasks\.engine\.progress_log: "
    assert any(re.fullmatch(time_of_day + "Prefect: loading", line) for line in lines)
    assert any(re.fullmatch(time_of_day + "sample/ab12: started", line) for line in lines)
    assert sum(line.endswith(" flows.announcement: stage 2 of 9: sample") for line in lines) == 1
    assert any(
        re.fullmatch(time_of_day + re.escape(f"sample/ab12: {HALF}"), line) for line in lines
    )


def test_a_terminal_has_no_lines_of_progress() -> None:
    written = show(on_terminal=True)
    assert "stage 2 of 9: sample" in written
    assert "sample/ab12: shard 0 is made" in written
    assert "sample/ab12: started" not in written
    assert f"sample/ab12: {HALF}" not in written


def drawn(bars: Bars) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=140)
    with Live(console=console, get_renderable=bars.draw, auto_refresh=False) as live:
        live.refresh()
    return ESCAPES.sub("", file.getvalue())


def test_a_terminal_has_a_bar_for_what_is_running_and_none_for_what_is_over() -> None:
    bars = Bars()
    logger = logging.getLogger("tasks.engine.progress_log")
    announcements = logging.getLogger("flows.announcement")
    logger.addHandler(bars)
    announcements.addHandler(bars)
    logger.setLevel(logging.INFO)
    try:
        with half_done():
            (line,) = {line.strip() for line in drawn(bars).splitlines() if line.strip()}
        assert re.fullmatch(rf"sample/ab12 +[━╸╺]{{20}} +{re.escape(HALF)}", line)
        announce_stage("stage 2 of 9: sample")
        with half_done():
            lines = (line.strip() for line in drawn(bars).splitlines() if line.strip())
            heading, line = dict.fromkeys(lines)
        assert heading == "stage 2 of 9: sample"
        assert re.fullmatch(rf"sample +[━╸╺]{{20}} +{re.escape(HALF)}", line)
        with ProgressLog("pipeline"):  # another run begins
            assert "stage 2 of 9" not in drawn(bars)
        assert drawn(bars).strip() == ""
    finally:
        logger.removeHandler(bars)
        announcements.removeHandler(bars)
        logger.setLevel(logging.NOTSET)


def test_of_a_stage_within_a_stage_the_inner_one_is_drawn() -> None:
    bars = Bars()
    logger = logging.getLogger("tasks.engine.progress_log")
    logger.addHandler(bars)
    logger.setLevel(logging.INFO)
    try:
        with ProgressLog("train/ab12") as train, train.nested("reference/cd34"):
            assert "train/ab12" not in drawn(bars)
            assert "reference/cd34" in drawn(bars)
    finally:
        logger.removeHandler(bars)
        logger.setLevel(logging.NOTSET)
