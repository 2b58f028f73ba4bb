"""Paths, addresses and keys from the environment: never in a preset, an artifact or a log.

    PVAR_HOME                 downloaded and converted models, the defaults below   ./.pvar
    PVAR_STORE_URI            artifacts: a path, file://… or s3://bucket/prefix     <home>/store
    PVAR_MLFLOW_TRACKING_URI  or MLFLOW_TRACKING_URI                                <home>/mlflow.db
    AWS_ENDPOINT_URL_S3       or AWS_ENDPOINT_URL: an S3-compatible server          Amazon's
    AWS_REGION                or AWS_DEFAULT_REGION
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN

    PVAR_SAMPLER_BASE_URL     of the policy's server (infra/engines/openai_sampler.py),
                              with PVAR_SAMPLER_API_KEY and PVAR_SAMPLER_SEEDS
    PVAR_JUDGE_BASE_URL       of a judge's server (infra/judges/access.py), PVAR_JUDGE_API_KEY
    PVAR_REWARD_BASE_URL      of a reward model's server (infra/rewards/http_scorer.py),
                              with PVAR_REWARD_API_KEY

Without AWS keys boto3 uses its usual sources (profile, container role, instance role). An empty
variable counts as absent.
"""

import tempfile
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from pvar.errors import ConfigError


def _default_store_uri(values: dict[str, Any]) -> str:
    home: Path = values["home"]
    return (home.absolute() / "store").as_uri()


def _default_tracking_uri(values: dict[str, Any]) -> str:
    home: Path = values["home"]
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


class Settings(BaseSettings):
    """Folders and addresses of this machine."""

    model_config = SettingsConfigDict(
        env_prefix="PVAR_", env_ignore_empty=True, frozen=True, populate_by_name=True
    )

    home: Path = Field(default_factory=lambda: Path.cwd() / ".pvar")
    """Folder for downloaded and converted models and other local files."""

    store_uri: str = Field(default_factory=_default_store_uri)
    """Root of the artifacts, for `infra.store.open_store`."""

    mlflow_tracking_uri: str = Field(
        default_factory=_default_tracking_uri,
        validation_alias=AliasChoices("PVAR_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
        repr=False,  # a database's address may hold its password
    )
    """MLflow's server or database."""


def make_folder(folder: Path) -> None:
    """Create a local folder; ConfigError if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"{folder} is not writable ({error.strerror}); set PVAR_HOME or "
            "PVAR_MLFLOW_TRACKING_URI to a writable location"
        ) from error


class S3Access(BaseSettings):
    """S3 settings from the standard variables, read once so that tests can pass their own."""

    model_config = SettingsConfigDict(
        env_prefix="AWS_", env_ignore_empty=True, frozen=True, populate_by_name=True
    )

    endpoint_url: str | None = Field(
        default=None, validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    )
    """Address of an S3-compatible server; None is boto3's default (a profile's, or Amazon's)."""

    region: str | None = Field(
        default=None, validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION")
    )
    """Region of the bucket."""

    access_key_id: str | None = Field(default=None, repr=False)
    """Id of the access key; None lets boto3 find credentials."""

    secret_access_key: SecretStr | None = None
    """The key itself."""

    session_token: SecretStr | None = None
    """Third part of temporary credentials."""
