"""MLflow's database: one that can be used, or an error that names the cause, in limited time.

MLflow creates and upgrades its tables in some 70 transactions. If it is killed between two of
them, no MLflow can open the database again. So a SQLite database is created under another name
(`infra.partial_file`), and gets its own name when it is complete. Of an existing one a copy is
upgraded, and written back in one transaction: the file stays, with its rights, for those who have
it open.

MLflow tries for minutes to reach a server of a database; here it is asked once before that.
Not covered: creating tables in other databases, which their administrators can restore.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from infra.addresses import without_credentials
from infra.partial_file import has_content, partial_file, take_name
from infra.settings import make_folder
from pvar.errors import TrackingError

if TYPE_CHECKING:
    from sqlalchemy import Engine

KINDS = ("sqlite", "postgresql", "mysql", "mssql")
"""The databases that MLflow supports."""

CONNECT_SECONDS = "10"
"""For each address of a PostgreSQL server. The usual driver of MySQL has the same limit."""

SQLITE_WAIT_SECONDS = 60.0
"""How long another process may be writing."""


def ready_database(tracking_uri: str, *, upgrade: bool = False) -> None:
    """Create a SQLite database that is not there yet; nothing is done for a server's address.

    With `upgrade`, a SQLite database of an earlier MLflow is upgraded. ConfigError if its folder
    is not writable, TrackingError for what names its remedy, and SQLAlchemy's errors otherwise.
    """
    if tracking_uri.partition(":")[0].partition("+")[0] not in KINDS:
        return
    path = sqlite_path(tracking_uri)
    if path is None:
        _ask(tracking_uri)
        return
    try:
        _ready_sqlite(path.resolve(), upgrade=upgrade)
    except (sqlite3.Error, OSError) as error:
        raise TrackingError(
            f"MLflow's database {path} cannot be made or upgraded: {error}; check the rights and "
            f"the space of {path.parent}, and end other processes that use the database"
        ) from error


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file of a SQLite database; None for other addresses, and for one in memory."""
    scheme, _, rest = tracking_uri.partition(":///")
    name = rest.partition("?")[0]
    is_file = scheme.partition("+")[0] == "sqlite" and name and not name.startswith((":", "file:"))
    return Path(name) if is_file else None


def _ready_sqlite(path: Path, *, upgrade: bool) -> None:
    if not _is_unfinished(path, upgrade=upgrade):
        return
    make_folder(path.parent)
    with partial_file(path) as partial:
        if not _is_unfinished(path, upgrade=upgrade):  # another process was faster
            return
        if has_content(path):
            _upgrade(partial, path)
        else:
            _migrate(partial, path)
            take_name(partial, path)


def _is_unfinished(path: Path, *, upgrade: bool) -> bool:
    """Whether tables or, with `upgrade`, migrations are missing in a database of MLflow's."""
    if not has_content(path):
        return True
    from mlflow.store.db.utils import (
        _all_tables_exist,
        _get_latest_schema_revision,
        _get_schema_version,
    )
    from sqlalchemy import inspect

    with _opened(path, path) as engine:
        if not inspect(engine).has_table("alembic_version"):
            return False
        if not _all_tables_exist(engine):  # type: ignore[no-untyped-call]
            return True
        if not upgrade:
            return False
        found = _get_schema_version(engine)  # type: ignore[no-untyped-call]
        newest = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
        return bool(found != newest)


def _upgrade(partial: Path, path: Path) -> None:
    """Upgrade a copy, and write it back in one transaction."""
    with closing(sqlite3.connect(path, SQLITE_WAIT_SECONDS, isolation_level=None)) as old:
        # Held from here to the end: nobody writes what would be lost.
        old.execute("PRAGMA locking_mode = EXCLUSIVE")
        old.execute("BEGIN EXCLUSIVE")
        old.execute("COMMIT")
        with closing(sqlite3.connect(partial)) as copy:
            old.backup(copy)
        _migrate(partial, path)
        with closing(sqlite3.connect(partial)) as copy:
            copy.backup(old)
    partial.unlink()


def _migrate(partial: Path, path: Path) -> None:
    """Create the tables, or those that are missing, and sync the file to the disk once."""
    from mlflow.store.db.utils import _initialize_tables

    with _opened(partial, path) as engine:
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
    with partial.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _opened(file: Path, path: Path) -> "Iterator[Engine]":
    """The file as a database, without a sync of each transaction; errors name `path`."""
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy import URL, create_engine, event
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    address = URL.create("sqlite", database=str(file))
    waiting = {"timeout": SQLITE_WAIT_SECONDS}
    engine = create_engine(address, poolclass=NullPool, connect_args=waiting)
    event.listen(engine, "connect", _unsynced)
    try:
        yield engine
    except (SQLAlchemyError, CommandError, MlflowException) as error:
        cause = str(error).partition("\n")[0]
        raise TrackingError(
            f"MLflow's database {path} cannot be completed or upgraded: {cause}; restore it from a "
            "backup or use the version of MLflow that made it, or move it away: a new one is made, "
            "and pvar registry rebuild registers the models of the store again"
        ) from error
    finally:
        engine.dispose()


def _unsynced(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def _ask(tracking_uri: str) -> None:
    """Ask the database whether it has tables of MLflow's, whatever the answer."""
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from sqlalchemy import inspect, make_url
    from sqlalchemy.exc import ArgumentError

    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
    try:
        make_url(tracking_uri)
    except (ArgumentError, ValueError):  # quotes the address
        raise TrackingError(
            "PVAR_MLFLOW_TRACKING_URI is not the address of a database; write postgresql://user:"
            "password@host:port/name, with %40 for @ and %2F for / in the password"
        ) from None
    try:
        engine = create_sqlalchemy_engine(tracking_uri)  # type: ignore[no-untyped-call]
        try:
            with engine.connect() as connection:
                inspect(connection).has_table("alembic_version")
        finally:
            engine.dispose()
    except UnicodeDecodeError:  # the driver's, of a message in another encoding
        raise TrackingError(
            f"MLflow's database {without_credentials(tracking_uri)} refuses the connection, in "
            "words that are not UTF-8; look at its log"
        ) from None
    except ModuleNotFoundError as error:
        raise TrackingError(
            f"MLflow's database {without_credentials(tracking_uri)} needs the Python module "
            f"{error.name}, which is not installed; install the package that has it"
        ) from None
