"""Workers of one stage in a simulation: killed, paused, late, failing, with clocks hours apart.

The code is the product's; store, time and threads are simulated (tests/simulation). Every single
fault at every call is tried, and generated combinations of them. `PVAR_FUZZ_EXAMPLES` is the number
of combinations (tests/README.md, "Simulations").
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvar.artifacts import Manifest, Recipe, ShardRecord
from pvar.row_counts import RowCounts
from tasks.engine import shard_files, stage
from tasks.engine.lease import Lease, LeaseRecord, Sighting, hold
from tests.simulation.generated import fates_of_calls, generated_runs
from tests.simulation.memory_store import MemoryStore
from tests.simulation.scheduler import FATES, Fate, Simulation, Violation
from tests.simulation.stage_world import Counts, StageWorld, simulated

Plant = Callable[[pytest.MonkeyPatch, Simulation], None]


def run(
    seed: int,
    fates: dict[int, Fate],
    *,
    num_shards: int = 2,
    num_workers: int = 2,
    remade_after: float | None = None,
    plant: Plant | None = None,
) -> Counts:
    with pytest.MonkeyPatch.context() as patch, _folder() as folder:
        simulation = Simulation(seed, fates)
        simulated(simulation, patch)
        if plant is not None:
            plant(patch, simulation)
        world = StageWorld(simulation, folder, num_shards, num_workers, remade_after=remade_after)
        return world.run()


@contextmanager
def _folder() -> Iterator[Path]:
    memory = Path("/dev/shm")  # thousands of small files
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def single_fates(seed: int, plant: Plant | None = None) -> Iterator[dict[int, Fate]]:
    """Each fate at each call of a run that has no other; also at those after a restart."""
    num_calls = run(seed, {}, plant=plant).calls
    for number in range(num_calls + 10):
        for kind in FATES:
            yield {number: Fate(kind)}


def test_without_a_fault_each_shard_is_made_once() -> None:
    for seed in range(20):
        counts = run(seed, {}, num_shards=4, num_workers=3)
        assert (counts.works, counts.takeovers) == (4, 0)
        assert counts == run(seed, {}, num_shards=4, num_workers=3)  # the same run again


def test_any_single_fault_at_any_call_harms_nothing() -> None:
    for fates in single_fates(0):
        run(0, fates)


@generated_runs(200)
@given(
    seed=st.integers(0, 2**32),
    fates=fates_of_calls(150, [20.0, 70.0, 200.0, 1000.0], most=6),
    num_shards=st.integers(1, 3),
    num_workers=st.integers(2, 3),
)
def test_combined_faults_harm_nothing(
    seed: int, fates: dict[int, Fate], num_shards: int, num_workers: int
) -> None:
    run(seed, fates, num_shards=num_shards, num_workers=num_workers)


@generated_runs(100)
@given(
    seed=st.integers(0, 2**32),
    fates=fates_of_calls(120, [5.0, 20.0, 150.0, 500.0], most=4),
    num_shards=st.integers(1, 2),
    num_workers=st.integers(1, 2),
    remade_after=st.floats(0, 300),
)
def test_an_input_that_is_made_again_meanwhile_mixes_nothing(
    seed: int, fates: dict[int, Fate], num_shards: int, num_workers: int, remade_after: float
) -> None:
    run(seed, fates, num_shards=num_shards, num_workers=num_workers, remade_after=remade_after)


def _remake_while_the_manifest_is_written(plant: Plant | None) -> None:
    for seed in range(60):
        run(seed, {}, num_shards=1, remade_after=68 + seed / 10, plant=plant)


def test_an_input_that_is_made_again_at_the_end_mixes_nothing() -> None:
    _remake_while_the_manifest_is_written(None)


def _stop_at_any_call(plant: Plant | None) -> None:
    """Also of the two that discard: one is stopped while the other completes the stage."""
    for number in range(50):
        for kind in ("paused", "late"):
            for seconds in (150.0, 500.0):
                fates = {number: Fate(kind, seconds)}
                run(0, fates, num_shards=1, num_workers=1, remade_after=71.2, plant=plant)


def test_an_input_that_is_made_again_while_a_process_is_stopped_mixes_nothing() -> None:
    _stop_at_any_call(None)


def _stop_until_it_is_discarded(plant: Plant | None) -> None:
    """Stop a process at its upload until another one discards what it found of the stage."""
    for fifths in range(5 * 64, 5 * 71):
        fates = {15: Fate("paused", fifths / 5)}
        run(0, fates, num_shards=1, num_workers=1, remade_after=71.2, plant=plant)


def test_a_shard_that_comes_while_the_earlier_ones_are_discarded_mixes_nothing() -> None:
    _stop_until_it_is_discarded(None)


def test_a_record_of_an_earlier_input_that_is_taken_is_found() -> None:
    def plant(patch: pytest.MonkeyPatch, _: Simulation) -> None:
        patch.setattr(ShardRecord, "is_of", lambda *_: True)

    with pytest.raises(Violation, match="shard 0 of the manifest is of another input"):
        _stop_until_it_is_discarded(plant)


def _replace_the_manifest(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    def faulty(store: Any, keys: Any, recipe: Any, manifest: Manifest) -> None:
        existing = stage.read_document(store, keys.manifest, Manifest)
        if existing is None or existing.inputs != manifest.inputs:
            store.write(keys.manifest, manifest.to_json())

    patch.setattr(stage, "put_manifest", faulty)


def _discard_what_is_there(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    def faulty(store: Any, keys: Any, recipe: Any, *_: Any, ttl_seconds: float) -> None:
        with hold(store, keys.lease(0), ttl_seconds=ttl_seconds):
            if stage.read_document(store, keys.recipe, Recipe) != recipe:
                return
            for key in [info.key for info in store.list(f"{keys.root}/")]:
                if "/leases/" not in key:
                    store.delete(key)

    patch.setattr(stage, "discard_stale", faulty)


@pytest.mark.parametrize("plant", [_replace_the_manifest, _discard_what_is_there])
def test_a_complete_artifact_that_a_late_process_harms_is_found(plant: Plant) -> None:
    with pytest.raises(Violation, match=r"was deleted|was replaced"):
        _stop_at_any_call(plant)


def test_a_manifest_that_is_written_without_a_lease_is_found() -> None:
    def plant(patch: pytest.MonkeyPatch, _: Simulation) -> None:
        patch.setattr(stage, "_complete", stage._write_manifest)

    with pytest.raises(Violation, match="the manifest came before the"):
        _remake_while_the_manifest_is_written(plant)


def _compare_clocks(patch: pytest.MonkeyPatch, simulation: Simulation) -> None:
    to_json = LeaseRecord.to_json

    def dated(record: LeaseRecord) -> bytes:
        until = simulation.wall_clock() + timedelta(seconds=record.ttl_seconds)
        return to_json(record.model_copy(update={"expires_at": until}))

    def is_free(seen: Sighting) -> bool:
        until = seen.record.expires_at
        return seen.record.is_released or (until is not None and until <= simulation.wall_clock())

    patch.setattr(LeaseRecord, "to_json", dated)
    patch.setattr(Sighting, "is_free", property(is_free))


def _manifest_first(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    make_missing_shards = stage._make_missing_shards

    def faulty(declared: Any, recipe: Any, job: Any, records: Any) -> Any:
        manifest = Manifest(
            stage=recipe.stage,
            version=recipe.version,
            digest=job.keys.digest,
            inputs=recipe.made_from,
            shards=(),
            row_counts=RowCounts(),
            summary={},
        )
        job.ports.store.create(job.keys.manifest, manifest.to_json())
        return make_missing_shards(declared, recipe, job, records)

    patch.setattr(stage, "_make_missing_shards", faulty)


def _record_before_files(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    class Nowhere:
        def upload(self, path: Path, key: str) -> None:
            pass

    def faulty(store: Any, keys: Any, shard: int, local: Path, row_counts: RowCounts) -> Any:
        nowhere: Any = Nowhere()
        record = shard_files.upload_shard(nowhere, keys, shard, local, row_counts)
        store.create(keys.record(shard), record.to_json())
        return shard_files.upload_shard(store, keys, shard, local, row_counts)

    patch.setattr(stage, "upload_shard", faulty)


def _release_anothers_lease(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    def release(lease: Lease) -> None:
        newest = [info.key for info in lease._store.list(f"{lease.prefix}/")][-1]
        released = lease._record.model_copy(update={"is_released": True})
        lease._store.write(newest, released.to_json())

    patch.setattr(Lease, "release", release)


def _take_without_condition(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    create = MemoryStore.create

    def faulty(store: MemoryStore, key: str, data: bytes) -> bool:
        if "/leases/" not in key:
            return create(store, key, data)
        store.write(key, data)
        return True

    patch.setattr(MemoryStore, "create", faulty)


def _no_look_after_the_claim(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    patch.setattr(stage, "is_recorded", lambda *_: False)


def _counter_stands(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    patch.setattr(Lease, "renew", lambda _: None)


def _short_of_patience(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    def is_free(seen: Sighting) -> bool:
        return seen.record.is_released or seen.unmoved_seconds >= seen.record.ttl_seconds / 2

    patch.setattr(Sighting, "is_free", property(is_free))


def _never_released(patch: pytest.MonkeyPatch, _: Simulation) -> None:
    patch.setattr(Sighting, "is_free", property(lambda seen: seen.record.is_released))


PLANTED = {
    "clocks are compared": _compare_clocks,
    "the manifest comes first": _manifest_first,
    "a record comes before its files": _record_before_files,
    "another's lease is released": _release_anothers_lease,
    "a lease is taken without a condition": _take_without_condition,
    "nobody looks after the claim": _no_look_after_the_claim,
    "the counter stands": _counter_stands,
    "a lease is dead too early": _short_of_patience,
    "a dead one is waited for": _never_released,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str) -> None:
    with pytest.raises(Violation):
        _run_all(PLANTED[name])


def _run_all(plant: Plant) -> None:
    for seed in range(2):
        for fates in single_fates(seed, plant):
            run(seed, fates, plant=plant)
