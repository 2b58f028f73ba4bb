"""The history of the alias `champion`, without MLflow."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from infra.promotion_history import (
    Kind,
    Move,
    PromotionHistory,
    previous_champion,
    rolled_back_versions,
)
from pvar.ports import Store

Step = tuple[Kind, int | None]


def moves(*steps: Step) -> list[Move]:
    made: list[Move] = []
    for number, (kind, to) in enumerate(steps, start=1):
        before = made[-1].to_version if made else None
        made.append(
            Move(
                number=number,
                kind=kind,
                from_version=before,
                to_version=to,
                by="me",
                reason="",
                at=datetime(2026, 1, number, tzinfo=UTC),
            )
        )
    return made


@pytest.mark.parametrize(
    ("steps", "previous"),
    [
        ((), None),
        ((("promotion", 1),), None),
        ((("promotion", 1), ("promotion", 2)), 1),
        # Back from 3 lies 2, and back from there 1: not 3 again.
        ((("promotion", 1), ("promotion", 2), ("promotion", 3)), 2),
        ((("promotion", 1), ("promotion", 2), ("promotion", 3), ("rollback", 2)), 1),
        ((("promotion", 1), ("promotion", 2), ("promotion", 3), ("rollback", 1)), None),
        # What was rolled back is no champion to return to.
        ((("promotion", 1), ("promotion", 2), ("rollback", 1), ("promotion", 3)), 1),
        # A version that never was champion comes on top, however it got there.
        ((("promotion", 1), ("by_hand", 7)), 1),
        ((("promotion", 1), ("rollback", 5)), 1),
        # A person who moves the alias back has rolled back.
        ((("promotion", 1), ("promotion", 2), ("promotion", 3), ("by_hand", 2)), 1),
        # An older model that wins again is promoted over the one it beat.
        ((("promotion", 1), ("promotion", 2), ("promotion", 1)), 2),
        # Where the alias was taken away, the last champion is the one to return to.
        ((("promotion", 1), ("promotion", 2), ("by_hand", None)), 2),
        ((("by_hand", None),), None),
    ],
)
def test_a_rollback_returns_to_the_champion_below(
    steps: tuple[Step, ...], previous: int | None
) -> None:
    assert previous_champion(moves(*steps)) == previous


@pytest.mark.parametrize(
    ("steps", "gone"),
    [
        ((), set()),
        ((("promotion", 1), ("promotion", 2), ("promotion", 3)), set()),
        ((("promotion", 1), ("promotion", 2), ("promotion", 3), ("rollback", 1)), {2, 3}),
        ((("promotion", 1), ("promotion", 2), ("by_hand", 1)), {2}),
        ((("promotion", 1), ("promotion", 2), ("by_hand", None)), set()),
        # Back to a version that never was champion.
        ((("promotion", 1), ("promotion", 2), ("rollback", 5)), {2}),
        # It was wrong to go back.
        ((("promotion", 1), ("promotion", 2), ("rollback", 1), ("rollback", 2)), {1}),
        ((("promotion", 1), ("promotion", 2), ("rollback", 1), ("promotion", 3)), {2}),
        ((("promotion", 1), ("promotion", 2), ("rollback", 1), ("promotion", 2)), set()),
    ],
)
def test_versions_that_were_rolled_back_are_those_above_the_champion(
    steps: tuple[Step, ...], gone: set[int]
) -> None:
    assert rolled_back_versions(moves(*steps)) == gone


def test_a_move_gets_the_next_number_once(file_store: Store) -> None:
    history = PromotionHistory(file_store, "m")
    assert history.newest() is None
    first = history.append(None, "promotion", 1, by="me", reason="first")
    assert first is not None
    assert (first.number, first.from_version, first.to_version) == (1, None, 1)
    assert history.append(None, "promotion", 2, by="you", reason="late") is None
    assert [move.by for move in history.moves()] == ["me"]


def test_a_move_is_done_when_marked(file_store: Store) -> None:
    history = PromotionHistory(file_store, "m")
    first = history.append(None, "promotion", 1, by="me", reason="")
    assert first is not None
    before = history.newest()
    assert before is not None
    assert not before.is_done
    history.mark_done(first)
    after = history.newest()
    assert after is not None
    assert after.is_done
    history.append(after, "promotion", 2, by="me", reason="")
    newest = history.newest()
    assert newest is not None
    assert (newest.move.number, newest.move.from_version, newest.is_done) == (2, 1, False)


def test_a_noticed_move_needs_no_mark(file_store: Store) -> None:
    history = PromotionHistory(file_store, "m")
    history.append(None, "by_hand", 4, by="me", reason="")
    newest = history.newest()
    assert newest is not None
    assert newest.is_done


def test_models_have_histories_of_their_own(file_store: Store) -> None:
    PromotionHistory(file_store, "m").append(None, "promotion", 1, by="me", reason="")
    assert PromotionHistory(file_store, "m2").moves() == []


def test_a_move_whose_answer_was_lost_is_the_callers_own(file_store: Store) -> None:
    class Repeating:
        """Its answers get lost, and the client puts again."""

        def create(self, key: str, data: bytes) -> bool:
            file_store.create(key, data)
            return file_store.create(key, data)

        def __getattr__(self, name: str) -> Any:
            return getattr(file_store, name)

    history = PromotionHistory(cast(Store, Repeating()), "m")
    assert history.append(None, "promotion", 1, by="me", reason="better") is not None
    assert history.append(None, "promotion", 2, by="me", reason="too late") is None
    assert [move.to_version for move in history.moves()] == [1]
