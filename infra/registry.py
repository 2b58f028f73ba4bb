"""The MLflow model registry: versions made from artifacts, and the alias `champion`.

MLflow does not guard against concurrent promotions and has no history of an alias. Here a move is
decided by its entry in the history (`infra.promotion_history`), and then the aliases are updated:
`champion`, and `previous`, the version to which a rollback returns. Every read of the champion
first reconciles both: it finishes an unfinished move and records an alias that was moved by hand.

MLflow cannot move an alias conditionally. A process that is suspended in the call that moves it,
while two others promote, may set it back; it checks again after the call and corrects that.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, NamedTuple, ParamSpec, TypeVar

from infra.actor import whoami
from infra.promotion_history import Kind, Move, NewestMove, PromotionHistory, previous_champion
from infra.tracking import Tracking, raise_unreachable
from pvar.errors import LostRaceError, ModelError, PromotionError
from pvar.ports import Promotion, RegisteredVersion, Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_log = logging.getLogger(__name__)

CHAMPION = "champion"
PREVIOUS = "previous"
ARTIFACT_TAG = "pvar.artifact"
OPPONENT_TAG = "pvar.opponent"
REBUILD_TAG = "pvar.rebuild"
"""Tag of a registered model from the start of its rebuild to the end, so that a missing version is
not taken for one that a person deleted."""
NUM_NAMED = 5
"""Maximum number of models or versions listed in an error about a missing one."""


class VersionFacts(NamedTuple):
    """A version and its tags."""

    version: RegisteredVersion
    tags: Mapping[str, str]


class _Settled(NamedTuple):
    """The reconciled alias and history."""

    champion: RegisteredVersion | None
    newest: NewestMove | None


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _explained(
    method: "Callable[Concatenate[MlflowRegistry, _P], _R]",
) -> "Callable[Concatenate[MlflowRegistry, _P], _R]":
    """Turn MLflow's exceptions into TrackingError."""

    @wraps(method)
    def call(self: "MlflowRegistry", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        from mlflow.exceptions import MlflowException

        try:
            return method(self, *args, **kwargs)
        except MlflowException as error:
            raise_unreachable(self.tracking_uri, error)

    return call


class MlflowRegistry:
    """The registry, and the store with its history. Errors: TrackingError, StoreError."""

    def __init__(self, tracking: Tracking, store: Store) -> None:
        self._tracking = tracking
        self._store = store

    @property
    def tracking_uri(self) -> str:
        """MLflow's address."""
        return self._tracking.tracking_uri

    @_explained
    def champion(self, model_name: str) -> RegisteredVersion | None:
        """The version with the alias `champion`; None if there is none yet."""
        return self._settle(self._history(model_name)).champion

    @_explained
    def history(self, model_name: str) -> list[Move]:
        """All moves of the champion, oldest first; the last one leads to the current champion.

        ModelError for a model that was never registered.
        """
        history = self._history(model_name)
        self._settle(history)
        moves = history.moves()
        if not moves:
            self._refuse_unregistered(model_name)
        return moves

    @_explained
    def resolve(self, reference: str) -> RegisteredVersion:
        """The version of `models:/name@alias` or `models:/name/3`."""
        from mlflow.exceptions import MlflowException

        matched = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))", reference)
        if matched is None:
            raise ModelError(
                f"{reference!r} is not a reference to a registered model; write models:/name@alias "
                "or models:/name/3"
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
            self._refuse_unregistered(name)
            raise ModelError(
                f"MLflow has no {reference}; {_newest(self._numbers(name))}"
            ) from error
        return registered_version(found)

    @_explained
    def versions(self, model_name: str | None = None) -> list[VersionFacts]:
        """All versions of a model, or of all models, by name and number."""
        wanted = None if model_name is None else f"name = '{model_name}'"
        client = self._tracking.client
        found: list[ModelVersion] = []
        token = None
        while True:
            page = client.search_model_versions(wanted, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                break
        facts = [VersionFacts(registered_version(version), dict(version.tags)) for version in found]
        return sorted(facts, key=lambda each: (each.version.model_name, each.version.version))

    @_explained
    def download(self, reference: str, folder: Path) -> None:
        """Copy a registered model's files into a folder."""
        import mlflow

        mlflow.artifacts.download_artifacts(
            artifact_uri=reference,
            dst_path=str(folder),
            tracking_uri=self._tracking.tracking_uri,
        )

    @_explained
    def register(
        self, model_name: str, folder: Path, artifact: str, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """The version made from `artifact`: registered now, or by an earlier attempt.

        Its files are uploaded to the artifact store directly, not through MLflow's server.
        ModelError if the model was lost and not rebuilt, since its numbers are in the history.
        """
        if not self._is_registered(model_name) and self._history(model_name).newest() is None:
            self._ensure_model(model_name)
        self._refuse_lost(model_name)
        client = self._tracking.client
        for facts in self.versions(model_name):
            if facts.version.artifact == artifact:
                number = str(facts.version.version)
                for tag, value in tags.items():
                    client.set_model_version_tag(model_name, number, tag, value)
                return facts.version._replace(opponent=tags.get(OPPONENT_TAG))
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
        return RegisteredVersion(model_name, int(version.version), artifact, tags.get(OPPONENT_TAG))

    @_explained
    def restore(self, version: RegisteredVersion, folder: Path, tags: Mapping[str, str]) -> bool:
        """Register a version again under its number, with its files; False if it is all there.

        If the history ends at this version, it is the champion from then on. Numbers below it that
        MLflow would give first are used up. ModelError if MLflow has another model under this
        number, or gives only higher ones.
        """
        name, number, artifact = version.model_name, version.version, version.artifact
        self._ensure_model(name, {REBUILD_TAG: "not complete"})
        there = {facts.version.version: facts.version for facts in self.versions(name)}
        if (found := there.get(number)) is None:
            self._delete_leftovers(version, list(there.values()))
            self._restore_version(version, folder, tags)
        elif found.artifact != artifact:
            raise ModelError(
                f"{name} version {number} is of {found.artifact or 'another origin'} in MLflow "
                f"and of {artifact} in the store, so they are of different registries; give "
                "PVAR_MLFLOW_TRACKING_URI and PVAR_STORE_URI of one and the same"
            )
        is_new = found is None or self._restore_files(found, folder)
        newest = self._history(name).newest()
        if newest and newest.move.to_version == number and self._named_champion(name) is None:
            self._name(name, CHAMPION, number)
        return is_new

    def _delete_leftovers(
        self, version: RegisteredVersion, there: Sequence[RegisteredVersion]
    ) -> None:
        """Delete lower numbers that a killed rebuild gave to this version and did not delete."""
        model = self._model(version.model_name)
        if model is None or REBUILD_TAG not in model.tags:
            return
        for other in there:
            if other.artifact == version.artifact and other.version < version.version:
                self._tracking.client.delete_model_version(other.model_name, str(other.version))

    def _restore_version(
        self, version: RegisteredVersion, folder: Path, tags: Mapping[str, str]
    ) -> None:
        name, number = version.model_name, version.version
        client = self._tracking.client
        model = client.create_logged_model(self._tracking.experiment, name=name, tags=dict(tags))
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        given = 0
        while given < number:
            made = client.create_model_version(
                name,
                source=model.artifact_location,
                tags={**tags, ARTIFACT_TAG: version.artifact or ""},
                model_id=model.model_id,
            )
            given = int(made.version)
            if given != number:
                client.delete_model_version(name, made.version)
        if given > number:
            raise ModelError(
                f"{name}: MLflow gives number {given} to version {number}, because it had versions "
                "up to there before; rebuild in an empty registry"
            )

    def _restore_files(self, version: RegisteredVersion, folder: Path) -> bool:
        """Upload the files that are not in the store with their size; False if all are."""
        prefix = self._files_of(version)
        if prefix is None:
            return False
        there = {info.key: info.num_bytes for info in self._store.list(prefix)}
        files = {
            f"{prefix}{path.relative_to(folder).as_posix()}": path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        missing = [key for key, path in files.items() if there.get(key) != path.stat().st_size]
        for key in missing:
            self._store.upload(files[key], key)
        return bool(missing)

    @_explained
    def restore_aliases(self, model_name: str) -> int | None:
        """Set the aliases by the history in the store, which ends a rebuild; the champion's number.

        None if there is no champion, or if its version was not restored.
        """
        model = self._model(model_name)
        if model is None:
            return None
        history = self._history(model_name)
        newest = history.newest()
        if newest is not None and newest.move.to_version is not None:
            self._follow(history, newest.move)
        if REBUILD_TAG in model.tags:
            self._tracking.client.delete_registered_model_tag(model_name, REBUILD_TAG)
        return _number(self._named_champion(model_name))

    @_explained
    def has_files(self, version: RegisteredVersion) -> bool:
        """Whether a version's files are in the store; True if they are kept elsewhere."""
        prefix = self._files_of(version)
        return prefix is None or next(iter(self._store.list(prefix)), None) is not None

    def _files_of(self, version: RegisteredVersion) -> str | None:
        """Prefix of a version's files in the store; None if they are kept elsewhere."""
        client = self._tracking.client
        found = client.get_model_version(version.model_name, str(version.version))
        root, source = f"{self._store.uri}/", found.source or ""
        return f"{source.removeprefix(root).rstrip('/')}/" if source.startswith(root) else None

    def _refuse_without_files(self, version: RegisteredVersion) -> None:
        if not self.has_files(version):
            raise PromotionError(
                f"{version.model_name} version {version.version} cannot be made champion: its "
                f"files are gone from the store; pvar registry rebuild {version.model_name} brings "
                f"them back if the store still has {version.artifact or 'its artifact'}"
            )

    @_explained
    def promote(
        self,
        version: RegisteredVersion,
        *,
        instead_of: RegisteredVersion | None,
        reason: str,
        by: str | None = None,
    ) -> None:
        """Make `version` the champion; LostRaceError if another promotion came first.

        `by` is who decided (by default the user of this process).
        """
        history = self._history(version.model_name)
        champion, newest = self._settle(history)
        if _number(champion) == version.version:
            return  # an earlier try got so far
        if _number(champion) != _number(instead_of):
            raise LostRaceError(
                f"{version.model_name}: the champion is now {_label(_number(champion))}, no longer "
                f"{_label(_number(instead_of))}, because of another promotion; run the pipeline "
                "again to compare with the new champion"
            )
        self._refuse_without_files(version)
        self._move(history, newest, "promotion", version.version, by=by, reason=reason)

    @_explained
    def promotions(self, version: RegisteredVersion) -> list[Promotion]:
        """The promotions that led to `version`, oldest first, whatever came after them."""
        return [
            Promotion(move.from_version, move.reason)
            for move in self._history(version.model_name).moves()
            if move.kind == "promotion" and move.to_version == version.version
        ]

    @_explained
    def roll_back(
        self, model_name: str, to: int | None = None, *, reason: str, by: str | None = None
    ) -> Move:
        """Make an earlier version the champion: `to`, or the champion before this one."""
        history = self._history(model_name)
        champion, newest = self._settle(history)
        target = previous_champion(history.moves()) if to is None else to
        if target is None:
            self._refuse_unregistered(model_name)
            before = "" if champion is None else f" before {_label(champion.version)}"
            others = [number for number in self._numbers(model_name) if number != _number(champion)]
            advice = (
                f"give a version: pvar rollback {model_name} --to VERSION --reason TEXT "
                f"({_newest(others)})"
                if others
                else "there is no other version"
            )
            raise PromotionError(f"{model_name} had no champion{before}; {advice}")
        if target == _number(champion):
            raise PromotionError(f"{model_name}: version {target} is already the champion")
        self._refuse_without_files(self.resolve(f"models:/{model_name}/{target}"))
        return self._move(history, newest, "rollback", target, by=by, reason=reason)

    def _history(self, model_name: str) -> PromotionHistory:
        return PromotionHistory(self._store, model_name)

    def _settle(self, history: PromotionHistory) -> _Settled:
        """Reconcile the alias and its history.

        The history is read before the alias. A promotion between the two reads takes the number of
        the entry that would record it as a move by hand, and both are read again.
        """
        while True:
            newest = history.newest()
            champion = self._named_champion(history.model_name)
            current = _number(champion)
            if current is None and newest and newest.move.to_version is not None:
                self._refuse_lost(history.model_name)
            if newest and not newest.is_done and current in newest.ends:
                self._follow(history, newest.move)
            elif current == (newest.move.to_version if newest else None):
                return _Settled(champion, newest)
            else:
                self._record_move_by_hand(history, newest, current)

    def _record_move_by_hand(
        self, history: PromotionHistory, newest: NewestMove | None, to: int | None
    ) -> None:
        reason = "found moved outside pvar"
        if history.append(newest, "by_hand", to, by=whoami(), reason=reason):
            _log.warning("%s: champion was moved by hand to %s", history.model_name, _label(to))
            self._name_previous(history)

    def _move(
        self,
        history: PromotionHistory,
        newest: NewestMove | None,
        kind: Kind,
        to: int,
        *,
        by: str | None,
        reason: str,
    ) -> Move:
        move = history.append(newest, kind, to, by=by or whoami(), reason=reason)
        if move is None:
            raise LostRaceError(
                f"{history.model_name}: another promotion came first, so version {to} was not made "
                "champion; see pvar history, and run the pipeline again to compare with the new "
                "champion"
            )
        self._follow(history, move)
        return move

    def _follow(self, history: PromotionHistory, move: Move) -> None:
        """Update the aliases to a move, and to a newer one that comes in between."""
        while True:
            self._name(history.model_name, CHAMPION, move.to_version)
            self._name_previous(history)
            newest = history.newest()
            if newest is None or newest.move == move:
                break
            move = newest.move
        history.mark_done(move)

    def _name_previous(self, history: PromotionHistory) -> None:
        self._name(history.model_name, PREVIOUS, previous_champion(history.moves()))

    def _name(self, model_name: str, alias: str, version: int | None) -> None:
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
            _log.warning("%s: no %s in MLflow: %s stays", model_name, _label(version), alias)

    def _named_champion(self, model_name: str) -> RegisteredVersion | None:
        from mlflow.exceptions import MlflowException

        try:
            found = self._tracking.client.get_model_version_by_alias(model_name, CHAMPION)
        except MlflowException as error:
            if _is_missing(error):
                return None
            raise
        return registered_version(found)

    def _model(self, model_name: str) -> "RegisteredModel | None":
        from mlflow.exceptions import MlflowException

        try:
            return self._tracking.client.get_registered_model(model_name)
        except MlflowException as error:
            if not _is_missing(error):
                raise
            return None

    def _is_registered(self, model_name: str) -> bool:
        return self._model(model_name) is not None

    def _refuse_lost(self, model_name: str) -> None:
        """ModelError if MLflow does not have a model with a history, or not all of it yet."""
        model = self._model(model_name)
        again = f"pvar registry rebuild {model_name} makes it again"
        if model is None:
            raise ModelError(
                f"MLflow has no model {model_name!r}, but the store has a history of it: another "
                f"MLflow, or its database was lost? {again}; to begin anew, delete "
                f"{self._store.uri}/registry/{model_name}"
            )
        if REBUILD_TAG in model.tags:
            raise ModelError(
                f"MLflow has only a part of model {model_name!r}, because its rebuild was stopped "
                f"or is still running; {again}"
            )

    def _refuse_unregistered(self, model_name: str) -> None:
        if self._is_registered(model_name):
            return
        found = self._tracking.client.search_registered_models(max_results=NUM_NAMED)
        names = [model.name for model in found]
        there_are = f"there are {', '.join(names)}" if names else "none is: pvar run does it"
        raise ModelError(f"MLflow has no model {model_name!r}; {there_are}")

    def _numbers(self, model_name: str) -> list[int]:
        return [facts.version.version for facts in self.versions(model_name)]

    def _ensure_model(self, model_name: str, tags: Mapping[str, str] | None = None) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._tracking.client.create_registered_model(model_name, dict(tags or {}))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def registered_version(version: "ModelVersion") -> RegisteredVersion:
    """The parts of MLflow's version that are used here."""
    artifact = version.tags.get(ARTIFACT_TAG)
    return RegisteredVersion(
        version.name,
        int(version.version),
        artifact,
        version.tags.get(OPPONENT_TAG),
        _origin(version) if artifact is None else None,
    )


def _origin(version: "ModelVersion") -> str:
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


def _number(version: RegisteredVersion | None) -> int | None:
    return None if version is None else version.version


def _newest(numbers: Sequence[int]) -> str:
    if not numbers:
        return "it has no versions"
    return f"its newest versions: {', '.join(map(str, numbers[-NUM_NAMED:]))}"


def _label(version: int | None) -> str:
    return "nothing" if version is None else f"version {version}"
