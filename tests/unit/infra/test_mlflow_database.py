"""MLflow's database is whole or not there, whenever its creation or upgrade is killed."""

import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path

import mlflow.store.db.utils  # noqa: F401  here, not in each process that is killed
import pytest
from alembic import command
from alembic.config import Config

from infra.mlflow_database import ready_database, sqlite_path
from infra.mlflow_errors import mlflow_errors_explained
from infra.tracking import Tracking
from pvar.errors import TrackingError
from tests.services.killed import alone, completes, killed_at_commit
from tests.services.registry import empty_database

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unnamed CHECK constraint:UserWarning"),  # of its migrations
]

MOMENTS = (1, 2, 3, 4, 5, 7, 9, 12, 15, 18, 22, 26, 30, 35, 40, 45, 50, 56, 62, 68)
"""Commits of MLflow's 72."""


def revision(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def ready(path: Path, *, upgrade: bool = False) -> None:
    with mlflow_errors_explained(f"sqlite:///{path}"):
        ready_database(f"sqlite:///{path}", upgrade=upgrade)


def kill_creations(folder: Path) -> None:
    path = folder / "home" / "mlflow.db"
    for moment in MOMENTS:
        assert killed_at_commit(moment, partial(ready, path)), moment
        assert not path.exists(), moment
    assert completes(partial(ready, path))
    assert revision(path) == revision(empty_database())
    assert sorted(each.name for each in path.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
    found = Tracking(f"sqlite:///{path}", (folder / "store").as_uri())
    assert found.start_run("train", {})


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_no_unfinished_database(tmp_path: Path) -> None:
    alone(kill_creations, tmp_path)


def downgraded(path: Path) -> None:
    """A database of an MLflow three migrations ago, with an experiment of that time."""
    shutil.copy(empty_database(), path)
    migrations = Config()
    migrations.set_main_option("script_location", str(files("mlflow") / "store/db_migrations"))
    migrations.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    command.downgrade(migrations, "-3")


def kill_upgrades(folder: Path) -> None:
    path = folder / "mlflow.db"
    downgraded(path)
    before = path.read_bytes()
    for moment in (1, 2, 3):
        assert killed_at_commit(moment, partial(ready, path, upgrade=True)), moment
        assert path.read_bytes() == before, moment
    ready(path, upgrade=True)
    assert revision(path) == revision(empty_database())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


@pytest.mark.slow
def test_a_killed_upgrade_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    alone(kill_upgrades, tmp_path)


def test_what_a_removed_database_left_is_not_replayed_into_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as killed:
        killed.execute("PRAGMA journal_mode = WAL")
        killed.execute("CREATE TABLE removed (text TEXT)")
        left = (tmp_path / "mlflow.db-wal").read_bytes()
    assert left
    path.unlink()
    (tmp_path / "mlflow.db-wal").write_bytes(left)
    ready(path)
    assert revision(path) == revision(empty_database())
    with closing(sqlite3.connect(path)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert "removed" not in tables


def test_an_upgrade_keeps_the_file_its_rights_its_link_and_who_has_it_open(tmp_path: Path) -> None:
    path, link = tmp_path / "there" / "mlflow.db", tmp_path / "mlflow.db"
    path.parent.mkdir()
    downgraded(path)
    path.chmod(0o640)
    link.symlink_to(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT count(*) FROM experiments").fetchall()
        ready(link, upgrade=True)
        other.execute("UPDATE experiments SET name = 'written later'")
        other.commit()
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert revision(path) == revision(empty_database())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM experiments").fetchall() == [("written later",)]
    assert sorted(each.name for each in path.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_one_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    (tmp_path / "mlflow.db.lock").mkdir()
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be made or upgraded: .*directory"):
        ready(path)


def test_one_whose_tables_were_half_made_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """As a kill left it before tables were made under another name."""
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database(), path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DROP TABLE logged_models")
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    before = path.read_bytes()
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be completed .* move it away: a"):
        ready(path)
    assert path.read_bytes() == before


def test_one_of_another_program_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE notes (text TEXT)")
    before = path.read_bytes()
    ready(path, upgrade=True)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("not a database, and long enough to be looked at as one " * 20)
    with pytest.raises(TrackingError, match="file is not a database"):
        ready(path)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("sqlite:////folder/mlflow.db", "/folder/mlflow.db"),
        ("sqlite:///mlflow.db?timeout=3", "mlflow.db"),
        ("sqlite+pysqlite:///mlflow.db", "mlflow.db"),
        ("sqlite+aiosqlite:////folder/prefect.db", "/folder/prefect.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("sqlite:///file:mlflow.db?uri=true", None),
        ("postgresql://host/name", None),
        ("http://host:5000", None),
    ],
)
def test_the_file_of_a_database(address: str, path: str | None) -> None:
    assert sqlite_path(address) == (None if path is None else Path(path))


@contextmanager
def silent_port() -> Iterator[int]:
    """A port on which connections are accepted and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def refused(port: int) -> str:
    return (
        f"postgresql+psycopg2://ana:s3cr3t%2Fword@127.0.0.1:{port}/mlflow?application_name=s3cr3t"
    )


def unresolved(_: int) -> str:
    return "postgresql+psycopg2://ana:s3cr3t@word@nowhere.invalid/mlflow"  # its @ should be %40


@pytest.mark.parametrize("address", [refused, unresolved])
def test_a_database_that_nobody_answers_is_named_without_its_password(
    tmp_path: Path, address: Callable[[int], str]
) -> None:
    tracking = Tracking(address(9), tmp_path.as_uri())
    with pytest.raises(
        TrackingError, match=r"^MLflow at postgresql\+psycopg2://\S+/mlflow cannot be"
    ) as told:
        tracking.start_run("train", {})
    shown = f"{told.value} {told.value.__cause__}"
    assert not any(part in shown for part in ("s3cr3t", "word"))


def test_a_silent_database_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")  # the product's is longer
    with silent_port() as port, pytest.raises(TrackingError, match="timeout expired"):
        Tracking(refused(port), tmp_path.as_uri()).start_run("train", {})


def test_a_driver_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    tracking = Tracking("mysql://ana:s3cr3t@host/mlflow", tmp_path.as_uri())
    with pytest.raises(TrackingError, match=r"mysql://host/mlflow needs the Python module MySQLdb"):
        tracking.start_run("train", {})


def test_what_is_no_address_is_not_quoted(tmp_path: Path) -> None:
    tracking = Tracking("postgresql://ana:s3cr3t@host:port/mlflow", tmp_path.as_uri())
    with pytest.raises(TrackingError, match="not the address of a database") as told:
        tracking.start_run("train", {})
    assert "s3cr3t" not in str(told.value)
