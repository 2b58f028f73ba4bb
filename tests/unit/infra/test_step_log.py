"""Steps reach MLflow late rather than not at all, and an outage ends no work."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from infra.step_log import PAUSE_SECONDS, StepLog
from pvar.ports import Store
from tests.services.registry import RegistryNeighbours


@contextmanager
def outage(database: Path) -> Iterator[None]:
    """Within it, MLflow fails whatever it is asked about runs."""

    def rename(table: str, to: str) -> None:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO {to}")

    rename("runs", "gone")
    yield
    rename("gone", "runs")


def test_steps_of_an_outage_are_sent_when_it_is_over(
    tmp_path: Path, file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = RegistryNeighbours(tmp_path, file_store).tracking()
    run = tracking.start_run("train", {})
    now = 0.0
    steps = StepLog(tracking, run, clock=lambda: now)

    def logged() -> list[tuple[int, float]]:
        history = tracking.client.get_metric_history(run, "loss")
        return [(metric.step, metric.value) for metric in history]

    caplog.set_level(logging.INFO, "infra.step_log")
    steps.log(1, {"loss": 0.5})
    with outage(tmp_path / "mlflow.db"):
        steps.log(2, {"loss": 0.4})
        now += PAUSE_SECONDS
        steps.log(3, {"loss": 0.3})  # asks again, and says nothing new
    steps.log(4, {"loss": 0.2})  # too early to ask
    assert logged() == [(1, 0.5)]
    now += PAUSE_SECONDS
    steps.log(5, {"loss": 0.1})
    assert logged() == [(1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2), (5, 0.1)]
    with outage(tmp_path / "mlflow.db"):
        steps.log(6, {"loss": 0.0})
    steps.flush()
    assert logged()[-1] == (6, 0.0)
    ours = [record.levelname for record in caplog.records if record.name == "infra.step_log"]
    assert ours == ["WARNING", "INFO"] * 2
    assert "step 2 could not be logged" in caplog.text
    assert "4 steps sent late" in caplog.text
