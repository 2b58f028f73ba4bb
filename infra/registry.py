"""The MLflow model registry: versions made from artifacts, and the alias `champion`.

MLflow does not guard against concurrent promotions and has no history of an alias. Here a move is
decided by its entry in the history (`infra.promotion_history`), and then the aliases are updated:
`champion`, and `previous`, the version to which a rollback returns. Every read of the champion
first reconciles both: it finishes an unfinished move and records an alias that was moved by hand.

MLflow cannot move an alias conditionally. A process that is suspended in the call that moves it,
while two others promote, may set it back; it checks again after the call and corrects that.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from infra.actor import whoami
from infra.mlflow_errors import mlflow_explained
from infra.promotion_history import Kind, Move, NewestMove, PromotionHistory, previous_champion
from infra.registered_models import (
    ARTIFACT_TAG,
    OPPONENT_TAG,
    RegisteredModels,
    label,
    newest_of,
)
from infra.registry_restore import REBUILD_TAG, restore_version
from pvar.errors import LostRaceError, ModelError, PromotionError
from pvar.ports import Promotion, RegisteredVersion

_log = logging.getLogger(__name__)

CHAMPION = "champion"
PREVIOUS = "previous"
OUR_TAGS = "pvar."
"""Prefix of the tags that are set here."""


class _Settled(NamedTuple):
    """The reconciled alias and history."""

    champion: RegisteredVersion | None
    newest: NewestMove | None


class MlflowRegistry(RegisteredModels):
    """The registry, and the store with its history. Errors: TrackingError, StoreError."""

    @mlflow_explained
    def champion(self, model_name: str) -> RegisteredVersion | None:
        """The version with the alias `champion`; None if there is none yet."""
        return self._settle(self._history(model_name)).champion

    @mlflow_explained
    def history(self, model_name: str) -> list[Move]:
        """All moves of the champion, oldest first; the last one leads to the current champion.

        ModelError for a model that was never registered.
        """
        history = self._history(model_name)
        self._settle(history)
        moves = history.moves()
        if not moves:
            self.refuse_unregistered(model_name)
        return moves

    @mlflow_explained
    def register(
        self, model_name: str, folder: Path, artifact: str, tags: Mapping[str, str]
    ) -> RegisteredVersion:
        """The version made from `artifact`: registered now, or by an earlier attempt.

        Its files are uploaded to the artifact store directly, not through MLflow's server.
        ModelError if the model was lost and not rebuilt, since its numbers are in the history.
        """
        if not self.is_registered(model_name) and self._history(model_name).newest() is None:
            self.ensure_model(model_name)
        self._refuse_lost(model_name)
        client = self._tracking.client
        for facts in self.versions(model_name):
            if facts.version.artifact == artifact:
                name = str(facts.version.version)
                for tag in _earlier(facts.tags).difference(tags):
                    client.delete_model_version_tag(model_name, name, tag)
                for tag, value in tags.items():
                    client.set_model_version_tag(model_name, name, tag, value)
                found = facts.version._replace(opponent=tags.get(OPPONENT_TAG))
                self.describe(found, tags, folder)
                return found
        files = self.store_files(model_name, folder, tags)
        number = self.add_version(model_name, files, artifact, tags)
        version = RegisteredVersion(model_name, number, artifact, tags.get(OPPONENT_TAG))
        self.describe(version, tags, folder)
        return version

    @mlflow_explained
    def restore(self, version: RegisteredVersion, folder: Path, tags: Mapping[str, str]) -> bool:
        """Register a version again under its number, with its files; False if it is all there.

        If the history ends at this version, it is the champion from then on. Errors: those of
        `infra.registry_restore`.
        """
        is_new = restore_version(self, self._store, version, folder, tags)
        self.describe(version, tags, folder)
        newest = self._history(version.model_name).newest()
        is_last = newest is not None and newest.move.to_version == version.version
        if is_last and self.version_of_alias(version.model_name, CHAMPION) is None:
            self.set_alias(version.model_name, CHAMPION, version.version)
        return is_new

    @mlflow_explained
    def restore_aliases(self, model_name: str) -> int | None:
        """Set the aliases by the history in the store, which ends a rebuild; the champion's number.

        None if there is no champion, or if its version was not restored.
        """
        model = self.model(model_name)
        if model is None:
            return None
        history = self._history(model_name)
        newest = history.newest()
        if newest is not None and newest.move.to_version is not None:
            self._follow(history, newest.move)
        if REBUILD_TAG in model.tags:
            self._tracking.client.delete_registered_model_tag(model_name, REBUILD_TAG)
        return _number(self.version_of_alias(model_name, CHAMPION))

    def _refuse_without_files(self, version: RegisteredVersion) -> None:
        if not self.has_files(version):
            raise PromotionError(
                f"{version.model_name} version {version.version} cannot be made champion: its "
                f"files are gone from the store; pvar registry rebuild {version.model_name} brings "
                f"them back if the store still has {version.artifact or 'its artifact'}"
            )

    @mlflow_explained
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
                f"{version.model_name}: the champion is now {label(_number(champion))}, no longer "
                f"{label(_number(instead_of))}: it was moved meanwhile; see pvar history, and run "
                "the pipeline again to compare with the new champion"
            )
        self._refuse_without_files(version)
        self._move(history, newest, "promotion", version.version, by=by, reason=reason)

    @mlflow_explained
    def promotions(self, version: RegisteredVersion) -> list[Promotion]:
        """The promotions that led to `version`, oldest first, whatever came after them."""
        return [
            Promotion(move.from_version, move.reason)
            for move in self._history(version.model_name).moves()
            if move.kind == "promotion" and move.to_version == version.version
        ]

    @mlflow_explained
    def roll_back(
        self, model_name: str, to: int | None = None, *, reason: str, by: str | None = None
    ) -> Move:
        """Make an earlier version the champion: `to`, or the champion before this one."""
        history = self._history(model_name)
        champion, newest = self._settle(history)
        target = previous_champion(history.moves()) if to is None else to
        if target is None:
            self.refuse_unregistered(model_name)
            before = "" if champion is None else f" before {label(champion.version)}"
            numbers = [each.version.version for each in self.versions(model_name)]
            others = [number for number in numbers if number != _number(champion)]
            advice = (
                f"give a version: pvar rollback {model_name} --to VERSION --reason TEXT "
                f"({newest_of(others)})"
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
            champion = self.version_of_alias(history.model_name, CHAMPION)
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
            _log.warning("%s: champion was moved by hand to %s", history.model_name, label(to))
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
                f"{history.model_name}: the champion was moved meanwhile, so version {to} was not "
                "made champion; see pvar history, and run the pipeline again to compare with the "
                "new champion"
            )
        self._follow(history, move)
        return move

    def _follow(self, history: PromotionHistory, move: Move) -> None:
        """Update the aliases to a move, and to a newer one that comes in between."""
        while True:
            self.set_alias(history.model_name, CHAMPION, move.to_version)
            self._name_previous(history)
            newest = history.newest()
            if newest is None or newest.move == move:
                break
            move = newest.move
        history.mark_done(move)

    def _name_previous(self, history: PromotionHistory) -> None:
        self.set_alias(history.model_name, PREVIOUS, previous_champion(history.moves()))

    def _refuse_lost(self, model_name: str) -> None:
        """ModelError if MLflow does not have a model with a history, or not all of it yet."""
        model = self.model(model_name)
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


def _earlier(tags: Mapping[str, str]) -> set[str]:
    """Names of the tags of an earlier comparison; a person may have added others."""
    return {tag for tag in tags if tag.startswith(OUR_TAGS) and tag != ARTIFACT_TAG}


def _number(version: RegisteredVersion | None) -> int | None:
    return None if version is None else version.version
