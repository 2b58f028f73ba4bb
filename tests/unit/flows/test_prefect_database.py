"""Prefect's database is whole or not there, whenever its creation is killed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import prefect.server.models  # noqa: F401  here, not in each process that is killed
import pytest

from flows.prefect_database import create_prefect_database
from tests.services.killed import alone, completes, killed_at_statement

MOMENTS = ("CREATE TABLE flow", "UPDATE flow_run SET state_timestamp", "DROP TABLE flow_run_notif")
"""Among them one of a migration that is committed in parts."""


def kill_starts(folder: Path) -> None:
    path = folder / "home" / "prefect.db"

    def create() -> None:
        from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

        address = f"sqlite+aiosqlite:///{path}"
        with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: address}):
            create_prefect_database()

    for moment in MOMENTS:
        assert killed_at_statement(moment, create), moment
        assert not path.exists(), moment
    assert completes(create)
    assert sorted(each.name for each in path.parent.iterdir()) == ["prefect.db", "prefect.db.lock"]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM flow_run").fetchone() == (0,)


@pytest.mark.slow
def test_a_killed_start_leaves_no_unfinished_database(tmp_path: Path) -> None:
    alone(kill_starts, tmp_path)
