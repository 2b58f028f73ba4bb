"""MLflow's registry, read from the tables of a SQLite database without MLflow.

To import MLflow takes longer than all else that `pvar show`, `history`, `lineage` and `gc` do. So
what they read of a database whose schema is known here comes from its tables. A server, another
database, another schema and one that cannot be read are left to MLflow's client, which explains
what is wrong, and so is everything that is written.
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from infra.mlflow_database import SQLITE_WAIT_SECONDS, sqlite_path

SCHEMAS = frozenset({"dc11669786a5"})
"""The newest revisions of MLflow's schema with which the queries below were compared with MLflow's
client: 3.17. A test fails if the installed MLflow has a newer one."""

_VERSIONS = """
SELECT name, version, creation_time, source, run_id FROM model_versions
WHERE workspace = 'default' AND current_stage != 'Deleted_Internal' AND (? IS NULL OR name = ?)
"""
_TAGS = """
SELECT name, version, key, value FROM model_version_tags
WHERE workspace = 'default' AND (? IS NULL OR name = ?)
"""
_ALIASES = """
SELECT name, alias, version FROM registered_model_aliases
WHERE workspace = 'default' AND (? IS NULL OR name = ?)
"""
_PROMPT_TAG = ("mlflow.prompt.is_prompt", "true")
"""Key and value of a tag that the versions of prompts have."""


class VersionRow(NamedTuple):
    """A version, with the names that its parts have in MLflow."""

    name: str
    version: int
    creation_timestamp: int | None
    source: str | None
    run_id: str | None
    tags: Mapping[str, str]


class RegistryTables(NamedTuple):
    """The versions of one model or of all models, and the aliases, at one moment."""

    versions: Mapping[tuple[str, int], VersionRow]
    """By name and number, without prompts, which MLflow keeps in the same tables."""
    aliases: Mapping[tuple[str, str], int]
    """Number of the version by name and alias."""

    def of_alias(self, model_name: str, alias: str) -> VersionRow | None:
        """The version with an alias; None if there is none."""
        number = self.aliases.get((model_name, alias))
        return None if number is None else self.versions.get((model_name, number))


def read_registry(tracking_uri: str, model_name: str | None) -> RegistryTables | None:
    """What the tables say of a model, or of all models; None if MLflow's client is to be asked."""
    path = sqlite_path(tracking_uri)
    if path is None or os.environ.get("MLFLOW_ENABLE_WORKSPACES") or not path.is_file():
        return None
    address = f"{path.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, SQLITE_WAIT_SECONDS, uri=True)) as database:
            database.execute("BEGIN")  # all that follows is of one moment
            schema = {revision for (revision,) in database.execute("SELECT * FROM alembic_version")}
            return _read(database, model_name) if schema and schema <= SCHEMAS else None
    except sqlite3.Error:
        return None


def _read(database: sqlite3.Connection, model_name: str | None) -> RegistryTables:
    wanted = (model_name, model_name)
    tags: dict[tuple[str, int], dict[str, str]] = {}
    for name, version, key, value in database.execute(_TAGS, wanted):
        tags.setdefault((name, version), {})[key] = value
    prompts = {name for (name, _), found in tags.items() if _PROMPT_TAG in found.items()}
    rows = [
        VersionRow(name, number, created, source, run, tags.get((name, number), {}))
        for name, number, created, source, run in database.execute(_VERSIONS, wanted)
        if name not in prompts
    ]
    aliases = {(name, alias): number for name, alias, number in database.execute(_ALIASES, wanted)}
    return RegistryTables({(row.name, row.version): row for row in rows}, aliases)
