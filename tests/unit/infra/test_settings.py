"""Settings come from the environment, and secrets do not come out."""

from pathlib import Path

import pytest

from infra.settings import S3Access, Settings

NAMES = (
    *("PVAR_HOME", "PVAR_STORE_URI", "PVAR_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_without_variables_everything_is_in_one_folder_here(tmp_path: Path) -> None:
    settings = Settings()
    assert settings.home == tmp_path / ".pvar"
    assert settings.store_uri == f"file://{tmp_path}/.pvar/store"
    assert settings.mlflow_tracking_uri == f"sqlite:///{tmp_path}/.pvar/mlflow.db"


def test_home_moves_what_is_not_set_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVAR_HOME", "/data/pvar")
    monkeypatch.setenv("PVAR_STORE_URI", "s3://bucket/prefix")
    settings = Settings()
    assert settings.store_uri == "s3://bucket/prefix"
    assert settings.mlflow_tracking_uri == "sqlite:////data/pvar/mlflow.db"


@pytest.mark.parametrize("name", ["PVAR_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"])
def test_mlflow_is_where_either_variable_says(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "postgresql://me:planted-secret@host/mlflow")
    settings = Settings()
    assert settings.mlflow_tracking_uri == "postgresql://me:planted-secret@host/mlflow"
    assert "planted-secret" not in repr(settings)
    assert "planted-secret" not in str(settings)


def test_empty_variables_are_absent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")
    assert Settings().store_uri.endswith("/.pvar/store")
    assert S3Access() == S3Access(endpoint_url=None, region=None)
    assert S3Access().access_key_id is None


def test_the_service_variable_comes_before_the_general_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert S3Access().endpoint_url == "http://general"
    assert S3Access().region == "eu-central-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3")
    assert S3Access().endpoint_url == "http://s3"


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "planted-token")
    access = S3Access()
    assert access.secret_access_key is not None
    assert access.secret_access_key.get_secret_value() == "planted-secret"
    assert (
        "planted" not in f"{access} {access!r} {access.model_dump_json(exclude={'access_key_id'})}"
    )
