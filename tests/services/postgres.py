"""PostgreSQL from Debian's package (`.ci/services postgresql`), in a folder of its own."""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.services.processes import free_port

PROGRAMS = ("pg_ctlcluster",)
_USER = "postgres"
"""Made by the package: the server refuses to run as root."""


class Postgres(NamedTuple):
    """A running server on loopback, with one user who may do everything."""

    port: int
    password: str

    def new_database(self, name: str) -> str:
        """Make an empty database and return its address."""
        import psycopg2

        with closing(psycopg2.connect(self.address("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str) -> str:
        return f"postgresql://pvar:{self.password}@127.0.0.1:{self.port}/{database}"


@contextmanager
def running() -> Iterator[Postgres]:
    """A server for the time of the body; its data is removed afterwards."""
    server = Postgres(free_port(), secrets.token_hex(16))
    folder = Path(tempfile.mkdtemp(prefix="pvar-postgres-"))
    shutil.chown(folder, _USER, _USER)
    try:
        _initialise(folder, server)
        _control(folder, "start", "--wait", "--log", str(folder / "log"))
        try:
            yield server
        finally:
            _control(folder, "stop", "--mode", "immediate")
    finally:
        shutil.rmtree(folder)


def _initialise(folder: Path, server: Postgres) -> None:
    password_file = folder / "password"
    password_file.write_text(server.password)
    shutil.chown(password_file, _USER, _USER)
    _run(
        *("initdb", "--pgdata", str(folder / "data"), "--username", "pvar", "--no-sync"),
        *("--auth", "scram-sha-256", "--pwfile", str(password_file)),
        *("--encoding", "UTF8", "--locale", "C.UTF-8"),
    )
    with (folder / "data" / "postgresql.conf").open("a") as settings:
        settings.write(
            f"port = {server.port}\nlisten_addresses = '127.0.0.1'\n"
            f"unix_socket_directories = ''\nfsync = off\n"
        )


def _control(folder: Path, *arguments: str) -> None:
    _run("pg_ctl", "--pgdata", str(folder / "data"), "--silent", *arguments)


def _run(program: str, *arguments: str) -> None:
    *_, newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    # Not captured: the server would hold a pipe open and keep us waiting.
    subprocess.run(
        [str(newest), *arguments],
        check=True,
        user=_USER,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
