"""A backtest: historical files replayed through retraining, by one or more policies.

Each policy has a home of its own, with a store and an MLflow, and is replayed by processes of its
own (`flows/backtest_member.py`), one for each run of the pipeline. After each minute and at the
end, `backtest.json` and `backtest.html` in the folder of the backtest have the results so far. The
registry, the batches and the incoming files of this machine are not touched.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from flows.backtest_folder import (
    History,
    open_history,
    open_policy,
    read_plan,
    read_position,
    read_result,
)
from flows.study_processes import run_parts
from flows.wiring import connect
from pvar.backtest_config import BacktestConfig
from pvar.backtest_result import BacktestedPolicy, BacktestResult
from tasks.report.backtest_page import render_backtest

logger = logging.getLogger(__name__)

MEMBER = "flows.backtest_member"
PUBLISH_SECONDS = 60.0
"""The results so far are written at most this often, and at the end."""
JSON_FILE, PAGE = "backtest.json", "backtest.html"


def run_backtest(config: BacktestConfig) -> tuple[BacktestResult, Path]:
    """Replay the history by every policy; the result and the folder that it is written to.

    A policy whose replay fails is named in the result and does not stop the others. Raises
    InputError if there are no files, ConfigError for what a backtest cannot do.
    """
    wiring = connect()
    history = open_history(config, wiring.settings)
    homes = {name: open_policy(config, name, history, wiring) for name in config.policies}
    errors: dict[str, str] = {}
    published_at = time.monotonic()
    while True:
        result = _result(config, history, homes, errors)
        left = [
            homes[each.name].name
            for each in result.policies
            if each.name not in errors and not each.is_complete
        ]
        if not left or time.monotonic() - published_at > PUBLISH_SECONDS:
            _publish(result, history.root)
            published_at = time.monotonic()
        if not left:
            return result, history.root
        names = {home.name: name for name, home in homes.items()}
        for end in run_parts(str(history.root), left, at_once=config.at_once, module=MEMBER):
            name = names[end.part]
            if end.error is not None:
                errors[name] = end.error
                logger.warning("policy %s: %s", name, end.error)
            done, looks = _progress(homes[name])
            logger.info("policy %s: %d of %d looks for files are replayed", name, done, looks)


def _progress(home: Path) -> tuple[int, int]:
    return read_position(home).num_looks_done, len(read_plan(home).looks)


def _result(
    config: BacktestConfig, history: History, homes: Mapping[str, Path], errors: Mapping[str, str]
) -> BacktestResult:
    arrivals = [file.arrives_at for file in history.files]
    return BacktestResult(
        batches=config.batches,
        time_source=history.time_source,
        num_files=len(history.files),
        first_at=min(arrivals),
        last_at=max(arrivals),
        policies=tuple(
            _policy(home).model_copy(update={"error": errors.get(name)})
            for name, home in homes.items()
        ),
    )


def _policy(home: Path) -> BacktestedPolicy:
    """The result of a policy so far. Not begun is one without looks and batches."""
    found, plan = read_result(home), read_plan(home)
    return found or BacktestedPolicy(
        name=plan.name,
        settings=plan.settings,
        folder=str(home),
        asks_person=plan.asks_person,
        num_looks=len(plan.looks),
        num_looks_done=0,
    )


def _publish(result: BacktestResult, root: Path) -> None:
    (root / JSON_FILE).write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (root / PAGE).write_text(render_backtest(result), encoding="utf-8")
