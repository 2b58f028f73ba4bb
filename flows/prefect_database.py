"""Prefect's SQLite database, created under another name until it is complete.

Some of Prefect's migrations are committed in parts. A server that is killed between two of them
leaves a database with which no later one starts.

    python -m flows.prefect_database server start …    `prefect server start …`, with a database
"""

import asyncio
import os
import runpy
import sqlite3
import sys
import threading
from contextlib import closing
from multiprocessing import get_context, parent_process
from pathlib import Path

from infra.mlflow_database import sqlite_path
from infra.partial_file import has_content, partial_file, take_name


def create_prefect_database() -> None:
    """Create the database that the settings name, if it is a SQLite file that is not there.

    Ends the process if Prefect cannot create it, with Prefect's error on standard error.
    """
    from prefect.settings import get_current_settings

    address = get_current_settings().server.database.connection_url
    path = None if address is None else sqlite_path(address.get_secret_value())
    if path is None or has_content(path):
        return
    path = path.resolve()  # of a link, the file that it names
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(path) as partial:
        if has_content(path):  # another process was faster
            return
        # A process of its own: Prefect keeps the first database that it opened.
        process = get_context("fork").Process(target=_migrate, args=(partial,))
        process.start()
        process.join()
        if process.exitcode != 0:
            sys.exit(1)
        take_name(partial, path)


def _migrate(partial: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

    address = f"sqlite+aiosqlite:///{partial}"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: address}):
        asyncio.run(_create_tables())
    with closing(sqlite3.connect(partial)) as database:
        database.execute("PRAGMA journal_mode = DELETE")  # Prefect's has a part in another file


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


async def _create_tables() -> None:
    from prefect.server.database import provide_database_interface

    database = provide_database_interface()
    await database.create_db()
    await (await database.engine()).dispose()


if __name__ == "__main__":
    create_prefect_database()
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
