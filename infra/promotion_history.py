"""The history of the alias `champion`, kept in the store because MLflow has none.

    registry/{model}/000003.json     the third move: who, when, from, to, why
    registry/{model}/000003.done     the aliases were updated

A move is put only if absent. So of several concurrent promotions that saw the same champion, one
gets the number, and then updates the alias. If the second object is missing, the process was killed
in between or is still running, and the next reader updates the alias. If it exists and the alias
differs, the alias was moved outside pvar.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from pvar.ports import Store

Kind = Literal["promotion", "rollback", "by_hand"]
"""by_hand: the alias was moved outside pvar, for example in MLflow's UI."""


class Move(BaseModel):
    """One move of the alias `champion`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    kind: Kind
    from_version: int | None
    """None if there was no champion before."""
    to_version: int | None
    """None if the alias was removed by hand."""
    by: str
    """Who moved it; for a move by hand, who detected it."""
    reason: str
    at: AwareDatetime


class NewestMove(NamedTuple):
    """The last move, and whether the aliases were updated."""

    move: Move
    is_done: bool

    @property
    def ends(self) -> tuple[int | None, int | None]:
        """The versions that the alias may name while the move is in progress."""
        return self.move.from_version, self.move.to_version


@dataclass(frozen=True)
class PromotionHistory:
    """The history of one registered model."""

    store: Store
    model_name: str

    def moves(self) -> list[Move]:
        """All moves, oldest first."""
        keys = [info.key for info in self.store.list(self._prefix)]
        return [self._read(key) for key in keys if key.endswith(".json")]

    def newest(self) -> NewestMove | None:
        """The last move; None before the first."""
        keys = [info.key for info in self.store.list(self._prefix)]
        entries = [key for key in keys if key.endswith(".json")]
        if not entries:
            return None
        move = self._read(entries[-1])
        # What was noticed has happened already.
        return NewestMove(move, move.kind == "by_hand" or self._marker(move) in keys)

    def append(
        self, after: NewestMove | None, kind: Kind, to: int | None, *, by: str, reason: str
    ) -> Move | None:
        """Put the move after `after`; None if another move has taken its number."""
        last = after.move if after else None
        move = Move(
            number=last.number + 1 if last else 1,
            kind=kind,
            from_version=last.to_version if last else None,
            to_version=to,
            by=by,
            reason=reason,
            at=datetime.now(UTC),
        )
        data = move.model_dump_json(indent=1).encode()
        key = f"{self._prefix}{move.number:06d}.json"
        # A put that is repeated, because its answer was lost, meets its own object.
        is_ours = self.store.create(key, data) or self.store.read(key) == data
        return move if is_ours else None

    def mark_done(self, move: Move) -> None:
        """Record that the aliases were updated."""
        self.store.create(self._marker(move), b"")

    @property
    def _prefix(self) -> str:
        return f"registry/{self.model_name}/"

    def _marker(self, move: Move) -> str:
        return f"{self._prefix}{move.number:06d}.done"

    def _read(self, key: str) -> Move:
        return Move.model_validate_json(self.store.read(key))


def rolled_back_versions(moves: Sequence[Move]) -> set[int]:
    """The versions from which the champion went back, by a rollback or by hand, and that did not
    become champion again since: those above the version to which it went."""
    pile: list[int] = []
    gone: set[int] = set()
    for move in moves:
        to = move.to_version
        if to is None:
            continue
        if move.kind != "promotion" and to in pile:
            while pile[-1] != to:
                gone.add(pile.pop())
        else:
            if move.kind == "rollback" and pile:
                gone.add(pile[-1])
            pile.append(to)
        gone.discard(to)
    return gone


def previous_champion(moves: Sequence[Move]) -> int | None:
    """The version to which a rollback returns; None if there is none.

    Champions form a stack. A promotion pushes a version. A rollback, or a move by hand to a version
    on the stack, pops all versions above it. So rolling back twice goes back two champions.
    """
    pile: list[int] = []
    for move in moves:
        to = move.to_version
        if to is None:
            continue
        if move.kind != "promotion" and to in pile:
            while pile[-1] != to:
                pile.pop()
        else:
            pile.append(to)
    if moves and moves[-1].to_version is None:
        return pile[-1] if pile else None
    return pile[-2] if len(pile) > 1 else None
