"""The MLflow model registry: versions made from artifacts, the alias `champion`, its history.

MLflow keeps neither a history of an alias nor a guard against two promotions at once (PITFALLS 32),
so every move is first written as the next entry of `registry/{model}/{number}.json` in the store,
put only if absent: of two promotions that saw the same champion one gets the entry and the other a
PromotionError. Then the alias moves, and `previous` follows. A promotion that was killed in between
is finished by the next try; an alias that was moved by hand is recorded when it is noticed.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from infra.tracking import Tracking
from pvar.errors import ModelError, PromotionError
from pvar.ports import RegisteredVersion, Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
PREVIOUS = "previous"
ARTIFACT_TAG = "pvar.artifact"
OPPONENT_TAG = "pvar.opponent"


class HistoryEntry(BaseModel):
    """One move of the alias `champion`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    from_version: int | None
    to_version: int
    reason: str
    """Who or what moved it, and why."""
    at: datetime


class MlflowRegistry:
    """The registry, and the store that keeps its history."""

    def __init__(self, tracking: Tracking, store: Store) -> None:
        self._tracking = tracking
        self._store = store

    def champion(self, model_name: str) -> RegisteredVersion | None:
        """The version that `champion` names; None if there is none yet."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._tracking.client.get_model_version_by_alias(model_name, CHAMPION)
        except MlflowException as error:
            if _is_missing(error):
                return None
            raise
        return _registered(found)

    def resolve(self, reference: str) -> RegisteredVersion:
        """The version that `models:/name@alias` or `models:/name/3` names."""
        from mlflow.exceptions import MlflowException

        matched = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
        if matched is None:
            raise ModelError(
                f"{reference!r} names no registered model; write models:/name@alias or "
                "models:/name/3"
            )
        name, alias, version = matched.groups()
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
            raise ModelError(
                f"MLflow has no {reference}; look at the registered versions in its UI"
            ) from error
        return _registered(found)

    def download(self, reference: str, folder: Path) -> None:
        """Copy a registered model's files into a folder."""
        import mlflow

        mlflow.artifacts.download_artifacts(
            artifact_uri=reference,
            dst_path=str(folder),
            tracking_uri=self._tracking.tracking_uri,
        )

    def register(
        self, model_name: str, folder: Path, artifact: str, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """The version made from `artifact`: registered now, or found from an earlier try."""
        self._ensure_model(model_name)
        client = self._tracking.client
        for found in client.search_model_versions(f"name = '{model_name}'"):
            if found.tags.get(ARTIFACT_TAG) == artifact:
                for tag, value in tags.items():
                    client.set_model_version_tag(model_name, found.version, tag, value)
                return _registered(found)
        model = client.create_logged_model(
            self._tracking.experiment, name=model_name, tags=dict(tags)
        )
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        version = client.create_model_version(
            model_name,
            source=model.artifact_location,
            tags={**tags, ARTIFACT_TAG: artifact},
            model_id=model.model_id,
        )
        return _registered(version)

    def promote(
        self, version: RegisteredVersion, *, instead_of: RegisteredVersion | None, reason: str
    ) -> None:
        """Record the move, then make it; PromotionError if somebody else moved first."""
        name = version.model_name
        current = self.champion(name)
        if current != instead_of:
            raise PromotionError(
                f"{name}: champion is {_label(current)}, not {_label(instead_of)} any more: another "
                "promotion came in between; run the pipeline again to compare with the new champion"
            )
        history = self.history(name)
        last = history[-1] if history else None
        from_version = None if current is None else current.version
        is_unfinished = (
            last is not None
            and last.to_version == version.version
            and last.from_version == from_version
        )
        if not is_unfinished:
            self._record_move_by_hand(name, last, from_version)
            self._append(name, from_version, version.version, reason)
        client = self._tracking.client
        if from_version is not None:
            client.set_registered_model_alias(name, PREVIOUS, str(from_version))
        client.set_registered_model_alias(name, CHAMPION, str(version.version))

    def history(self, model_name: str) -> list[HistoryEntry]:
        """All moves of the champion, oldest first."""
        return [
            HistoryEntry.model_validate_json(self._store.read(info.key))
            for info in self._store.list(f"registry/{model_name}/")
        ]

    def _record_move_by_hand(
        self, model_name: str, last: HistoryEntry | None, current: int | None
    ) -> None:
        recorded = None if last is None else last.to_version
        if current is not None and current != recorded:
            self._append(model_name, recorded, current, "moved outside pvar, noticed now")

    def _append(
        self, model_name: str, from_version: int | None, to_version: int, reason: str
    ) -> None:
        number = len(self.history(model_name)) + 1
        entry = HistoryEntry(
            number=number,
            from_version=from_version,
            to_version=to_version,
            reason=reason,
            at=datetime.now(UTC),
        )
        key = f"registry/{model_name}/{number:06d}.json"
        if not self._store.create(key, entry.model_dump_json(indent=1).encode()):
            raise PromotionError(
                f"{model_name}: another promotion wrote move {number} first; run the pipeline "
                "again to compare with the new champion"
            )

    def _ensure_model(self, model_name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._tracking.client.create_registered_model(model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _registered(version: "ModelVersion") -> RegisteredVersion:
    return RegisteredVersion(
        version.name,
        int(version.version),
        version.tags.get(ARTIFACT_TAG),
        version.tags.get(OPPONENT_TAG),
    )


def _is_missing(error: Exception) -> bool:
    code = getattr(error, "error_code", "")
    return code == "RESOURCE_DOES_NOT_EXIST" or (
        code == "INVALID_PARAMETER_VALUE" and "alias" in str(error).lower()
    )


def _label(version: RegisteredVersion | None) -> str:
    return "nothing" if version is None else f"version {version.version}"
