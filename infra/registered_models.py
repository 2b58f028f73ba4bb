"""The models and versions in MLflow's registry, without the rules by which a champion is made."""

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from infra.mlflow_errors import mlflow_explained
from infra.registry_tables import RegistryTables, VersionRow, read_registry
from infra.tracking import Tracking
from infra.transformers_flavor import task_of, write_flavor
from infra.version_description import describe_version
from pvar.errors import ModelError
from pvar.ports import RegisteredVersion, Store

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_log = logging.getLogger(__name__)

ARTIFACT_TAG = "pvar.artifact"
OPPONENT_TAG = "pvar.opponent"
NUM_NAMED = 5
"""Maximum number of models or versions listed in an error about a missing one."""


class VersionFacts(NamedTuple):
    """A version and its tags."""

    version: RegisteredVersion
    tags: Mapping[str, str]


class RegisteredModels:
    """What MLflow's registry has, and the store with the files. Errors: TrackingError, StoreError.

    Methods that are not for other packages leave MLflow's exceptions to their callers.
    """

    def __init__(self, tracking: Tracking, store: Store) -> None:
        self._tracking = tracking
        self._store = store

    @property
    def tracking_uri(self) -> str:
        """MLflow's address."""
        return self._tracking.tracking_uri

    @mlflow_explained
    def resolve(self, reference: str) -> RegisteredVersion:
        """The version of `models:/name@alias` or `models:/name/3`."""
        matched = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
        if matched is None:
            raise ModelError(
                f"{reference!r} is not a reference to a registered model; write models:/name@alias "
                "or models:/name/3"
            )
        name, alias, version = matched.groups()
        if (tables := self._tables(name)) is not None:
            row = (
                tables.of_alias(name, alias) if alias else tables.versions.get((name, int(version)))
            )
            if row is not None:
                return registered_version(row)
        from mlflow.exceptions import MlflowException

        client = self._tracking.client
        try:
            found = (
                client.get_model_version_by_alias(name, alias)
                if alias
                else client.get_model_version(name, version)
            )
        except MlflowException as error:
            if not _is_missing(error):
                raise
            self.refuse_unregistered(name)
            numbers = [each.version.version for each in self.versions(name)]
            raise ModelError(f"MLflow has no {reference}; {newest_of(numbers)}") from error
        return registered_version(found)

    @mlflow_explained
    def versions(self, model_name: str | None = None) -> list[VersionFacts]:
        """All versions of a model, or of all models, by name and number."""
        tables = self._tables(model_name)
        found = self._search(model_name) if tables is None else tables.versions.values()
        facts = [
            VersionFacts(registered_version(version), dict(version.tags))
            for version in found
            if model_name in (None, version.name)
        ]
        return sorted(facts, key=lambda each: (each.version.model_name, each.version.version))

    def _search(self, model_name: str | None) -> "list[ModelVersion]":
        wanted = None if model_name is None else _named(model_name)
        client = self._tracking.client
        found: list[ModelVersion] = []
        token = None
        while True:
            page = client.search_model_versions(wanted, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _tables(self, model_name: str | None) -> RegistryTables | None:
        """The registry without MLflow's client, where that is possible and it is not open."""
        if self._tracking.is_open:
            return None
        return read_registry(self.tracking_uri, model_name)

    @mlflow_explained
    def download(self, reference: str, folder: Path) -> None:
        """Copy a registered model's files into a folder."""
        import mlflow

        mlflow.artifacts.download_artifacts(
            artifact_uri=reference,
            dst_path=str(folder),
            tracking_uri=self._tracking.tracking_uri,
        )

    @mlflow_explained
    def has_files(self, version: RegisteredVersion) -> bool:
        """Whether a version's files are in the store; True if they are kept elsewhere."""
        prefix = self.files_of(version)
        return prefix is None or next(iter(self._store.list(prefix)), None) is not None

    def files_of(self, version: RegisteredVersion) -> str | None:
        """Prefix of a version's files in the store; None if they are kept elsewhere."""
        tables = self._tables(version.model_name)
        found: ModelVersion | VersionRow | None = None
        if tables is not None:
            found = tables.versions.get((version.model_name, version.version))
        if found is None:
            client = self._tracking.client
            found = client.get_model_version(version.model_name, str(version.version))
        return self._prefix_of(found)

    @mlflow_explained
    def numbers_with_files(self, model_name: str) -> frozenset[int]:
        """The versions of a model whose files are in the store, or are kept elsewhere: what
        `has_files` says of each, from one listing for all."""
        tables = self._tables(model_name)
        found = self._search(model_name) if tables is None else tables.versions.values()
        prefixes = {
            int(version.version): self._prefix_of(version)
            for version in found
            if version.name == model_name
        }
        inside = sorted(prefix for prefix in prefixes.values() if prefix is not None)
        there: set[str] = set()
        for _, group in groupby(inside, lambda prefix: prefix.partition("/")[0]):
            folders = list(group)
            shared = os.path.commonpath(folders)
            depths = {prefix.count("/") for prefix in folders}
            for info in self._store.list(f"{shared}/"):
                parts = info.key.split("/")
                there.update(f"{'/'.join(parts[:depth])}/" for depth in depths)
        return frozenset(
            number for number, prefix in prefixes.items() if prefix is None or prefix in there
        )

    def _prefix_of(self, version: "ModelVersion | VersionRow") -> str | None:
        root, source = f"{self._store.uri}/", version.source or ""
        return f"{source.removeprefix(root).rstrip('/')}/" if source.startswith(root) else None

    def store_files(self, model_name: str, folder: Path, tags: Mapping[str, str]) -> "LoggedModel":
        """Upload a folder to the artifact store directly, not through MLflow's server.

        Beside it are the files with which `mlflow.transformers` loads a model.
        """
        client = self._tracking.client
        model = client.create_logged_model(
            self._tracking.experiment, name=model_name, tags=dict(tags)
        )
        client.log_model_artifacts(model.model_id, str(folder))
        with tempfile.TemporaryDirectory() as beside:
            if write_flavor(folder, Path(beside)):
                client.log_model_artifacts(model.model_id, beside)
        client.finalize_logged_model(model.model_id, "READY")
        return model

    def add_version(
        self, model_name: str, files: "LoggedModel", artifact: str, tags: Mapping[str, str]
    ) -> int:
        """Register a version of files that are stored; its number, which MLflow gives."""
        version = self._tracking.client.create_model_version(
            model_name,
            source=files.artifact_location,
            tags={**tags, ARTIFACT_TAG: artifact},
            model_id=files.model_id,
        )
        return int(version.version)

    def describe(self, version: RegisteredVersion, tags: Mapping[str, str], folder: Path) -> None:
        """Give a version the description that its tags make, in place of the one before."""
        name, number = version.model_name, version.version
        text = describe_version(name, number, version.artifact or "", tags, task_of(folder))
        self._tracking.client.update_model_version(name, str(number), text)

    def delete_version(self, model_name: str, number: int) -> None:
        """Delete a version. MLflow does not give its number again."""
        self._tracking.client.delete_model_version(model_name, str(number))

    def set_alias(self, model_name: str, alias: str, version: int | None) -> None:
        """Set or remove an alias. It cannot be set to a deleted version."""
        from mlflow.exceptions import MlflowException

        client = self._tracking.client
        try:
            if version is None:
                client.delete_registered_model_alias(model_name, alias)
            else:
                client.set_registered_model_alias(model_name, alias, str(version))
        except MlflowException as error:
            if not _is_missing(error):
                raise
            _log.warning("%s: no %s in MLflow: %s stays", model_name, label(version), alias)

    def version_of_alias(self, model_name: str, alias: str) -> RegisteredVersion | None:
        """The version with an alias; None if there is none."""
        if (tables := self._tables(model_name)) is not None:
            row = tables.of_alias(model_name, alias)
            return None if row is None else registered_version(row)
        from mlflow.exceptions import MlflowException

        try:
            found = self._tracking.client.get_model_version_by_alias(model_name, alias)
        except MlflowException as error:
            if _is_missing(error):
                return None
            raise
        return registered_version(found)

    def model(self, model_name: str) -> "RegisteredModel | None":
        """The model with its tags; None if there is none."""
        from mlflow.exceptions import MlflowException

        try:
            return self._tracking.client.get_registered_model(model_name)
        except MlflowException as error:
            if not _is_missing(error):
                raise
            return None

    def is_registered(self, model_name: str) -> bool:
        """Whether there is a model of this name."""
        return self.model(model_name) is not None

    def refuse_unregistered(self, model_name: str) -> None:
        """ModelError if there is no model of this name."""
        if self.is_registered(model_name):
            return
        found = self._tracking.client.search_registered_models(max_results=NUM_NAMED)
        names = [model.name for model in found]
        there_are = f"there are {', '.join(names)}" if names else "pvar run registers the first"
        raise ModelError(f"MLflow has no model {model_name!r}; {there_are}")

    def ensure_model(self, model_name: str, tags: Mapping[str, str] | None = None) -> None:
        """Make the model, with these tags, unless it is there."""
        from mlflow.exceptions import MlflowException

        try:
            self._tracking.client.create_registered_model(model_name, dict(tags or {}))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _named(model_name: str) -> str | None:
    """MLflow's filter for a model, quoted by a quote that its name does not have.

    None, which is all models, if it has both: MLflow knows no way to write one inside a text.
    """
    quote = next((each for each in ("'", '"') if each not in model_name), None)
    return None if quote is None else f"name = {quote}{model_name}{quote}"


def registered_version(version: "ModelVersion | VersionRow") -> RegisteredVersion:
    """The parts of MLflow's version that are used here."""
    artifact = version.tags.get(ARTIFACT_TAG)
    return RegisteredVersion(
        version.name,
        int(version.version),
        artifact,
        version.tags.get(OPPONENT_TAG),
        _origin(version) if artifact is None else None,
    )


def _origin(version: "ModelVersion | VersionRow") -> str:
    facts = [  # in the types of every backend: numbers are texts for some, no run is None or ""
        version.name, int(version.version), version.source, version.run_id or "",
        int(version.creation_timestamp or 0),
    ]  # fmt: skip
    return f"mlflow-{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}"


def _is_missing(error: Exception) -> bool:
    code = getattr(error, "error_code", "")
    return code == "RESOURCE_DOES_NOT_EXIST" or (
        code == "INVALID_PARAMETER_VALUE" and "alias" in str(error).lower()
    )


def newest_of(numbers: Sequence[int]) -> str:
    """The newest versions, for an error about one that is missing."""
    if not numbers:
        return "it has no versions"
    return f"its newest versions: {', '.join(map(str, numbers[-NUM_NAMED:]))}"


def label(version: int | None) -> str:
    """A version in a sentence."""
    return "nothing" if version is None else f"version {version}"
