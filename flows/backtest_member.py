"""A process that replays a part of one policy: `python -m flows.backtest_member ROOT POLICY`.

ROOT is the folder of the backtest, POLICY the name of the policy's home in it. The process goes on
from the policy's position until a run of the pipeline has ended, as a schedule starts a process for
each retraining, or until the history ends. Its memory is free again at its end. It ends, too, when
its parent does.

What interrupts a backtest is not part of the history: an outage is no pause of a batch, and a run
that was killed is no attempt of it.
"""

import logging
import os
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pvar.errors import PvarError
from tasks.engine.child_processes import end_with_parent

if TYPE_CHECKING:
    from flows.wiring import Wiring
    from pvar.backtest_config import PolicyPlan

logger = logging.getLogger(__name__)


class _Look(NamedTuple):
    """What a look for files did."""

    waiting: tuple[str, ...]
    has_run: bool
    """Whether the pipeline was run."""


def advance(home: Path) -> None:
    """Replay a policy until a run of the pipeline has ended, or to the end of the history.

    The environment must be that of the policy (`policy_environment`).
    """
    from flows.backtest_folder import (
        Position,
        deliver,
        read_plan,
        read_position,
        save_position,
        save_result,
    )
    from flows.backtest_outcomes import read_policy
    from flows.wiring import connect

    plan, position, wiring = read_plan(home), read_position(home), connect()
    _forget_interruption(wiring)
    while position.num_looks_done < len(plan.looks):
        number = position.num_looks_done
        since, now = plan.looks[number - 1] if number else None, plan.looks[number]
        arrived = [
            file
            for file in plan.files
            if file.arrives_at <= now and (since is None or file.arrives_at > since)
        ]
        deliver(home, arrived, plan.config.incoming)
        look = _look(plan, now, wiring)
        position = Position(num_looks_done=number + 1, waiting=look.waiting)
        save_position(home, position)
        if look.has_run:
            break
    save_result(home, read_policy(home, plan, position, wiring))


def _forget_interruption(wiring: "Wiring") -> None:
    """Delete what an interruption of the backtest left: open attempts, and pauses."""
    from tasks.engine.lease import hold
    from tasks.retraining.batch_states import forget_outage
    from tasks.retraining.batches import LEASE, take_back
    from tasks.retraining.outage_notes import record_noted_outages

    store = wiring.store
    with hold(store, LEASE):
        for record in record_noted_outages(wiring.settings.home, store):
            for attempt in record.attempts:
                if attempt.error is None and record.done is None:
                    take_back(store, record.batch, attempt)
            if record.outage is not None:
                forget_outage(store, record.batch)


def _look(plan: "PolicyPlan", now: datetime, wiring: "Wiring") -> _Look:
    """One retraining at this time. An error that counts against a batch is one of the simulated
    retraining, and the next look comes; any other one is raised."""
    from prefect.exceptions import CancelledRun

    from flows.retraining import retrain_once
    from infra.outages import is_outage
    from pvar.errors import ConfigError, StageCancelledError

    num_failed = _num_failed(wiring)
    try:
        result = retrain_once(plan.config, replace(wiring, clock=lambda: now))
    except (ConfigError, CancelledRun, StageCancelledError):
        raise
    except Exception as error:  # whatever it is, its batch has it as the error of an attempt
        if is_outage(error) or _num_failed(wiring) == num_failed:
            raise
        logger.warning("retraining of %s failed: %s", f"{now:%Y-%m-%d %H:%M}", error)
        return _Look((), has_run=True)
    return _Look(result.waiting, has_run=bool(result.runs or result.batch))


def _num_failed(wiring: "Wiring") -> int:
    """Failed attempts of all batches."""
    from tasks.retraining.batch_states import read_records

    return sum(
        attempt.error is not None
        for record in read_records(wiring.store)
        for attempt in record.attempts
    )


def run_backtest_member() -> None:
    """Entry point of the process."""
    from flows.backtest_folder import policy_environment
    from flows.console import show_progress

    end_with_parent()
    root, policy = sys.argv[1:]
    home = Path(root) / policy
    os.environ.update(policy_environment(home))
    try:
        with show_progress():
            from prefect import tags

            with tags("backtest", policy):
                advance(home)
    except PvarError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    run_backtest_member()
