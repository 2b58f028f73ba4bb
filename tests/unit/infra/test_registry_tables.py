"""MLflow's registry as its tables say it, against MLflow's client."""

import sqlite3
from pathlib import Path

import pytest
from mlflow.store.db.utils import _get_latest_schema_revision

from infra.registered_models import ARTIFACT_TAG
from infra.registry_tables import SCHEMAS, read_registry
from pvar.errors import ModelError
from pvar.ports import Store
from tests.services.registry import MODEL, RegistryNeighbours

pytestmark = pytest.mark.slow  # MLflow sets up its database


@pytest.fixture
def neighbours(tmp_path: Path, file_store: Store) -> RegistryNeighbours:
    return RegistryNeighbours(tmp_path, file_store)


def test_the_schema_of_the_installed_mlflow_is_known() -> None:
    """If this fails, compare the queries with the new schema, and then name it."""
    newest = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
    assert newest in SCHEMAS


def test_the_tables_say_what_the_client_says(neighbours: RegistryNeighbours) -> None:
    client, store = neighbours.tracking().client, neighbours.store
    for name in (MODEL, "another"):
        client.create_registered_model(name)
        for number in (1, 2, 3):
            client.create_model_version(
                name,
                f"{store.uri}/mlflow/models/{name}-{number}/artifacts",
                tags={ARTIFACT_TAG: f"train/{number}", "pvar.note": "é'\"\n"} if number < 3 else {},
            )
    store.write(f"mlflow/models/{MODEL}-1/artifacts/model/config.json", b"{}")
    client.create_model_version(MODEL, "s3://elsewhere/model")
    client.delete_model_version(MODEL, "2")
    client.set_registered_model_alias(MODEL, "champion", "3")
    client.set_registered_model_alias("another", "champion", "1")
    client.create_prompt("a-prompt")
    client.create_prompt_version("a-prompt", "Say {{ this }}.")

    closed, opened = neighbours.registry(), neighbours.registry()
    assert opened.model(MODEL) is not None  # asked of the client, which is open from then on
    assert [each.version.version for each in opened.versions(MODEL)] == [1, 3, 4]
    for name in (MODEL, "another", None, "missing"):
        assert closed.versions(name) == opened.versions(name)
    for name in (MODEL, "another", "missing"):
        for alias in ("champion", "previous"):
            assert closed.version_of_alias(name, alias) == opened.version_of_alias(name, alias)
    for reference in (f"models:/{MODEL}/3", f"models:/{MODEL}@champion"):
        assert closed.resolve(reference) == opened.resolve(reference)
    assert closed.numbers_with_files(MODEL) == opened.numbers_with_files(MODEL) == {1, 4}
    for version in closed.versions():
        assert closed.has_files(version.version) == opened.has_files(version.version)
    tables = read_registry(neighbours.address, None)
    assert tables is not None
    assert len(tables.versions) == 6
    assert not closed._tracking.is_open
    for registry in (closed, opened):
        with pytest.raises(ModelError, match="has no model 'a-prompt'"):
            registry.resolve("models:/a-prompt/1")
    with pytest.raises(ModelError, match=r"has no models:/assistant/2; its newest versions: 1, 3"):
        closed.resolve(f"models:/{MODEL}/2")


def test_what_is_not_known_is_left_to_the_client(
    neighbours: RegistryNeighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, path = neighbours.address, neighbours.folder / "mlflow.db"
    assert read_registry(address, None) is not None
    assert read_registry("http://127.0.0.1:9", None) is None
    assert read_registry("postgresql://ana@127.0.0.1/mlflow", None) is None
    assert read_registry("sqlite:///:memory:", None) is None
    assert read_registry(f"{address}-missing", None) is None
    assert not Path(f"{path}-missing").exists()
    with monkeypatch.context() as environment:
        environment.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
        assert read_registry(address, None) is None
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = 'a-later-one'")
    database.close()
    assert read_registry(address, None) is None
    path.write_bytes(b"no database" * 1000)
    assert read_registry(address, None) is None
