"""What a stage failed at is what is raised, whatever MLflow says to it."""

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.execution import execute
from pvar.errors import InputError
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
