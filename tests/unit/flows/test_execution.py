"""What a stage failed at is what is raised, whatever MLflow says to it."""

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.execution import execute
from pvar.errors import InputError, TrackingError
from tests.services.registry import empty_database
from tests.workflow import start_workflow


def test_an_mlflow_that_fails_too_does_not_hide_the_stages_own_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flow = start_workflow(tmp_path)
    shutil.copy(empty_database(), tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE UPDATE OF status ON runs "
            "BEGIN SELECT RAISE(ABORT, 'no space'); END"
        )
    (tmp_path / "prompts.jsonl").write_text("")
    with caplog.at_level(logging.WARNING), pytest.raises(InputError, match=r"prompts\.jsonl"):
        execute(flow.config, "ingest", flow.wiring)
    assert "its end could not be logged" in caplog.text


def change_database(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute(statement)


def test_an_mlflow_that_fails_at_the_end_of_a_stage_loses_nothing(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    shutil.copy(empty_database(), tmp_path / "mlflow.db")
    change_database(
        tmp_path,
        "CREATE TRIGGER down BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'is down'); END",
    )
    with pytest.raises(TrackingError, match=r"MLflow at sqlite:\S+ cannot be used: .*is down"):
        execute(flow.config, "ingest", flow.wiring)
    change_database(tmp_path, "DROP TRIGGER down")
    assert execute(flow.config, "ingest", flow.wiring).state == "reused"


def test_an_mlflow_that_fails_at_the_start_of_a_stage_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And is named once: MLflow itself also logs a hundred lines with the SQL."""
    flow = start_workflow(tmp_path)
    shutil.copy(empty_database(), tmp_path / "mlflow.db")
    execute(flow.config, "ingest", flow.wiring)
    change_database(tmp_path, "ALTER TABLE runs RENAME TO gone")
    with pytest.raises(TrackingError, match=r"cannot be used: .*no such table: runs"):
        execute(flow.config, "sample", flow.wiring)
    assert "Traceback" not in capsys.readouterr().err
    change_database(tmp_path, "ALTER TABLE gone RENAME TO runs")
    assert execute(flow.config, "sample", flow.wiring).state == "made"
