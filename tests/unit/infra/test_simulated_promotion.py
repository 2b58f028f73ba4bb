"""Promotions in a simulation: every fault at every call, and combinations (tests/simulation)."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.promotion_history import Move, PromotionHistory
from infra.registry import MlflowRegistry
from pvar.ports import RegisteredVersion
from tests.simulation.generated import fates_of_calls, generated_runs
from tests.simulation.memory_store import MemoryStore
from tests.simulation.promotion_world import PromotionWorld
from tests.simulation.scheduler import FATES, Fate, Simulation, Violation

Plant = Callable[[pytest.MonkeyPatch], None]


def run(seed: int, fates: dict[int, Fate], num_workers: int) -> int:
    """The number of calls."""
    simulation = Simulation(seed, fates)
    PromotionWorld(simulation, num_workers).run()
    return simulation.num_calls


def run_all() -> None:
    for seed in range(5):
        for num_workers in (2, 3):
            for number in range(run(seed, {}, num_workers)):
                for kind in FATES:
                    run(seed, {number: Fate(kind, 1.0)}, num_workers)


def test_any_single_fault_leaves_a_chain_of_decided_promotions() -> None:
    run_all()


@generated_runs(200)
@given(
    seed=st.integers(0, 2**32),
    fates=fates_of_calls(60, [0.3, 1.0, 20.0], most=5),
    num_workers=st.integers(2, 3),
)
def test_combined_faults_leave_a_chain_of_decided_promotions(
    seed: int, fates: dict[int, Fate], num_workers: int
) -> None:
    run(seed, fates, num_workers)


def _number_without_condition(patch: pytest.MonkeyPatch) -> None:
    def create(store: MemoryStore, key: str, data: bytes) -> bool:
        store.write(key, data)
        return True

    patch.setattr(MemoryStore, "create", create)


def _whatever_it_was_compared_with(patch: pytest.MonkeyPatch) -> None:
    def promote(
        registry: MlflowRegistry,
        version: RegisteredVersion,
        *,
        instead_of: RegisteredVersion | None,
        reason: str,
        by: str | None = None,
    ) -> None:
        history = registry._history(version.model_name)
        newest = registry._settle(history).newest
        registry._move(history, newest, "promotion", version.version, by=by, reason=reason)

    patch.setattr(MlflowRegistry, "promote", promote)


def _marked_before_it_is_done(patch: pytest.MonkeyPatch) -> None:
    follow = MlflowRegistry._follow

    def faulty(registry: MlflowRegistry, history: PromotionHistory, move: Move) -> None:
        history.mark_done(move)
        follow(registry, history, move)

    patch.setattr(MlflowRegistry, "_follow", faulty)


PLANTED = {
    "a number is taken without a condition": _number_without_condition,
    "whatever it was compared with": _whatever_it_was_compared_with,
    "marked before it is done": _marked_before_it_is_done,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_planted_into_promotion_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    PLANTED[name](monkeypatch)
    with pytest.raises(Violation):
        run_all()
