"""Retrainings in a simulation, on machines whose clocks are hours apart (tests/simulation).

Every kill and every lost answer at every call is tried for each end that a run may have, and
generated combinations of all faults (`PVAR_FUZZ_EXAMPLES`).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import retrain_batch
from pvar.ports import Store
from pvar.retrain_decision import Batch
from tasks.retraining import batch_states, batches
from tests.simulation.generated import fates_of_calls, generated_runs
from tests.simulation.retraining_world import RetrainingWorld, RunEnd
from tests.simulation.scheduler import Fate, FateKind, Simulation, Violation
from tests.simulation.stage_world import simulated

ENDS: tuple[RunEnd, ...] = ("succeeds", "fails", "outage", "waits")

Plant = Callable[[pytest.MonkeyPatch], None]


def run(
    seed: int,
    fates: dict[int, Fate],
    ends: Sequence[RunEnd],
    folder: Path,
    *,
    num_batches: int = 1,
    num_workers: int = 2,
    plant: Plant | None = None,
) -> int:
    """The number of calls of the store."""
    with pytest.MonkeyPatch.context() as patch:
        simulation = Simulation(seed, fates)
        simulated(simulation, patch)
        if plant is not None:
            plant(patch)
        home = folder / f"{seed}-{len(list(folder.iterdir()))}"  # notes of outages are files
        home.mkdir()
        RetrainingWorld(simulation, home, ends, num_batches, num_workers).run(patch)
        return simulation.num_calls


SCHEDULES: dict[int, FateKind] = {
    0: "killed_before", 1: "killed_after", 2: "failed_after", 3: "killed_before",
}  # fmt: skip
"""Fault by seed, which also decides how far the machines' clocks differ."""


def run_all(folder: Path, plant: Plant | None = None) -> None:
    for seed, kind in SCHEDULES.items():
        for end in ENDS:
            for number in range(run(seed, {}, [end], folder, plant=plant)):
                run(seed, {number: Fate(kind)}, [end], folder, plant=plant)


def test_a_kill_or_a_lost_answer_at_any_call_leaves_each_batch_in_its_state(tmp_path: Path) -> None:
    run_all(tmp_path)


@generated_runs(150)
@given(
    seed=st.integers(0, 2**32),
    fates=fates_of_calls(150, [20.0, 200.0, 1000.0], most=4),
    ends=st.lists(st.sampled_from(ENDS), max_size=4),
    num_batches=st.integers(1, 2),
    num_workers=st.integers(1, 3),
)
def test_combined_faults_leave_each_batch_in_its_state(
    seed: int,
    fates: dict[int, Fate],
    ends: list[RunEnd],
    num_batches: int,
    num_workers: int,
    tmp_path: Path,
) -> None:
    run(seed, fates, ends, tmp_path, num_batches=num_batches, num_workers=num_workers)


def _compare_clocks(patch: pytest.MonkeyPatch) -> None:
    def is_of(attempt: batches.Attempt, _: str, at: datetime, now: datetime) -> bool:
        return attempt.started_at <= at <= now

    patch.setattr(batch_states, "_is_of", is_of)


def _failure_before_the_outage(patch: pytest.MonkeyPatch) -> None:
    def faulty(
        store: Store, batch: Batch, attempt: batches.Attempt, error: str, now: datetime
    ) -> batch_states.Outage:
        batches.record_failure(store, batch, attempt, error)
        return batch_states.record_outage(store, batch, attempt, error, now)

    patch.setattr(retrain_batch, "record_outage", faulty)


PLANTED = {
    "clocks are compared": _compare_clocks,
    "an outage counts until it is recorded": _failure_before_the_outage,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_planted_into_retraining_is_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(Violation):
        run_all(tmp_path, PLANTED[name])
