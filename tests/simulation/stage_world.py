"""Workers that complete one stage together, and what must hold at each change of the store.

a manifest       is put when all its shards have a record and their files, and never changes
a shard          with a record keeps it and its files, and is not made again: who takes its
                 lease when the record is there does not begin the work
a takeover       comes when the holder is dead or its lease has not moved for its time to live,
                 seen by who takes it over; each makes at most one double
a lease          is written by its holder alone
an input         that is made again is that of all shards of a manifest, or none. What is made from
                 it is not lost: a process that was stopped for longer than its lease lives, at a
                 deletion, deletes at most that one name, and the next run puts it back
the end          comes: within the faults' own time, and some times to live for each
"""

import hashlib
import json
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel

from pvar.artifacts import Manifest, Recipe, ShardRecord, ShardSpec, plan_shards
from pvar.errors import IncompleteError, LeaseError, StageError, StoreError
from pvar.ports import Ports
from pvar.row_counts import RowCounts
from pvar.runtime_config import RuntimeConfig
from tasks.engine.artifact import Artifact, ArtifactKeys
from tasks.engine.lease import LeaseRecord
from tasks.engine.stage import Job, Stage, run_stage
from tests.simulation.memory_store import Effect, MemoryStore, StoredObject
from tests.simulation.scheduler import BEGAN_SECONDS, Process, Simulation, Violation

TTL_SECONDS = 60.0
WORK_SECONDS = 70.0
LONG_AFTER_SECONDS = 20_000.0


class _Spec(BaseModel):
    name: str = "simulated"


@dataclass
class Counts:
    """What a run did, for the tables of the tests."""

    works: int = 0
    takeovers: int = 0
    calls: int = 0
    seconds: float = 0.0


@dataclass
class StageWorld:
    """A stage of some shards, made by some workers in one simulation."""

    simulation: Simulation
    folder: Path
    num_shards: int = 2
    num_workers: int = 2
    works: Counter[int] = field(default_factory=Counter)
    takeovers: Counter[int] = field(default_factory=Counter)
    remade_after: float | None = None
    """Seconds after which the input was made again with other content: two further workers begin
    then, and what the others still make from the earlier input must not be mixed with their work.
    Another one looks long after the end of all of them."""
    broken_off: Counter[int] = field(default_factory=Counter)
    """Works that ended without a record although their lease was released."""

    def __post_init__(self) -> None:
        self.simulation.errors = (StoreError,)
        if self.remade_after is not None:
            self.simulation.errors = (StoreError, LeaseError, StageError, IncompleteError)
        self.store = MemoryStore(self.simulation, self._check)
        self._listed_at: dict[Process, float] = defaultdict(lambda: -1.0)
        self._processes: dict[int, Process] = {}
        self._came_late: set[tuple[Process, int]] = set()
        self._is_remade = False
        self._made_from: dict[Process, bytes] = {}
        self._makers: dict[str, bytes] = {}
        self._lost: set[str] = set()
        stops = [fate for fate in self.simulation.fates.values() if fate.seconds >= TTL_SECONDS]
        self._most_lost = 0 if self.remade_after is None else len(stops)
        recipe = Recipe.of("simulated", 1, _Spec(), {"source": "0123"})
        self.keys, self._recipe = ArtifactKeys("simulated", recipe.digest), recipe

    def run(self) -> Counts:
        """Run the workers until all have the artifact; Violation if anything does not hold."""
        for worker in range(self.num_workers):
            self.simulation.start(worker, self._work, after=worker * 0.5)
        self._put_source()
        if self.remade_after is not None:
            self.simulation.start(self.num_workers, self._remake, after=self.remade_after)
            self.simulation.start(self.num_workers + 1, self._remake, after=self.remade_after + 1)
            self.simulation.start(self.num_workers + 2, self._look_again, after=LONG_AFTER_SECONDS)
        self.simulation.run()
        seconds = self.simulation.now - BEGAN_SECONDS
        self._check_end(seconds)
        num_calls = self.simulation.num_calls
        return Counts(self.works.total(), self.takeovers.total(), num_calls, seconds)

    def _work(self, process: Process) -> None:
        self._processes[process.pid] = process
        source = self._source()
        self._made_from[process] = source.manifest.first_sha256.encode()
        job = Job(
            spec=_Spec(),
            runtime=RuntimeConfig(lease_seconds=TTL_SECONDS),
            inputs={"source": source},
            ports=cast(Ports, types.SimpleNamespace(store=self.store)),
            keys=self.keys,
            scratch=self.folder / str(process.pid),
            log_step=lambda step, figures: None,
        )
        outcome = run_stage(self._stage(), self._recipe, job)
        if len(outcome.artifact.manifest.shards) != self.num_shards:
            raise Violation("the stage returned an artifact of a part")

    def _remake(self, process: Process) -> None:
        self._is_remade = True
        self._put_source()
        self._work(process)

    def _look_again(self, process: Process) -> None:
        before = self.works.total()
        self._work(process)
        if self.works.total() - before > len(self._lost):
            raise Violation("complete shards were made again")

    def _put_source(self) -> None:
        source = self._source()
        put = StoredObject(source.manifest.to_json(), 0, self.simulation.now)
        self.store.objects[source.keys.manifest] = put

    def _source(self) -> Artifact:
        """The input as it is now."""
        manifest = Manifest(
            stage="source",
            version=1,
            digest="0123",
            inputs={},
            shards=(),
            row_counts=RowCounts(rows_in=1 + self._is_remade, rows_out=1 + self._is_remade),
            summary={},
        )
        return Artifact(self.store, ArtifactKeys("source", "0123"), manifest, self.folder)

    def _stage(self) -> Stage[Any]:
        def plan(_: Job[Any]) -> Sequence[ShardSpec]:
            return plan_shards(self.num_shards, 1)

        @contextmanager
        def open_worker(_: Job[Any]) -> Iterator[Callable[[ShardSpec, Path], RowCounts]]:
            yield self._make

        return Stage(
            name="simulated",
            description="Writes a line.",
            version=1,
            plan=plan,
            open_worker=open_worker,
            summarise=lambda job, artifact: {},
        )

    def _make(self, shard: ShardSpec, folder: Path) -> RowCounts:
        process = self.simulation.process
        self.works[shard.index] += 1
        if self.remade_after is None and (process, shard.index) in self._came_late:
            raise Violation(f"shard {shard.index} was made again though it had a record")
        self.simulation.sleep(WORK_SECONDS)
        # Sampling is not reproducible: every process makes other rows.
        (folder / "rows.txt").write_text(f"shard {shard.index} of process {process.pid}\n")
        return RowCounts(rows_in=1, rows_out=1)

    def _check(self, effect: Effect) -> None:
        name = effect.key.removeprefix(f"{self.keys.root}/")
        if effect.verb == "list":
            self._listed_at[self.simulation.process] = self.simulation.now
        elif "/leases/" in effect.key:
            self._check_lease(effect, shard=int(name.split("/")[1]))
        elif effect.verb == "delete" and name != "waiting.json":
            if self._makers[effect.key] == self._source().manifest.first_sha256.encode():
                self._lost.add(effect.key)
                if name.count("/") > 1 or len(self._lost) > self._most_lost:
                    raise Violation(f"{name} was deleted: work is lost")
        elif name == "manifest.json":
            self._check_manifest(effect)
        elif effect.before is not None and effect.before != effect.data:
            raise Violation(f"{name} was replaced")
        if effect.data is not None:
            self._makers[effect.key] = self._made_from[self.simulation.process]

    def _check_manifest(self, effect: Effect) -> None:
        if effect.before is not None:
            raise Violation("the manifest was replaced")
        manifest = Manifest.model_validate_json(effect.data or b"")
        if [shard.index for shard in manifest.shards] != list(range(self.num_shards)):
            raise Violation("the manifest is that of a part")
        for shard in manifest.shards:
            self._check_shard(shard, manifest.inputs["source"])

    def _check_shard(self, shard: ShardRecord, source: str) -> None:
        """A shard of a manifest that names this input."""
        files = {f"{self.keys.root}/{shard.folder}/{file.name}": file for file in shard.files}
        if any(self._makers.get(key, source.encode()) != source.encode() for key in files):
            raise Violation(f"shard {shard.index} of the manifest is of another input")
        if source != self._source().manifest.first_sha256 and self._most_lost:
            return  # too late: nobody who has the input of today takes this manifest
        key = self.keys.record(shard.index)
        record = self.store.objects.get(key)
        made = ShardRecord.model_validate_json(record.data) if record else None
        if key not in self._lost and (made is None or made.folder != shard.folder):
            raise Violation(f"the manifest came before the record of shard {shard.index}")
        for key, file in files.items():
            put = self.store.objects.get(key)
            if put is None or hashlib.sha256(put.data).hexdigest() != file.sha256:
                raise Violation(f"the manifest came before the files of shard {shard.index}")

    def _check_lease(self, effect: Effect, shard: int) -> None:
        process, now = self.simulation.process, self.simulation.now
        if effect.data is None:
            raise Violation(f"{effect.key} was deleted")
        record = LeaseRecord.model_validate_json(effect.data)
        if record.holder != process.holder:
            raise Violation(f"process {process.pid} wrote the lease of {record.holder.pid}")
        is_recorded = self.keys.record(shard) in self.store.objects
        if effect.before is not None:
            before = json.loads(effect.before)
            if before["holder"] != json.loads(effect.data)["holder"]:
                raise Violation(f"process {process.pid} wrote over another's lease")
            self.broken_off[shard] += record.is_released and not is_recorded
            return
        if is_recorded:
            self._came_late.add((process, shard))
        epoch = int(effect.key.rpartition("/")[2].removesuffix(".json"))
        last = self.store.objects.get(f"{self.keys.lease(shard)}/{epoch - 1:06d}.json")
        if last is None:
            if epoch != 1:
                raise Violation(f"{effect.key} has no holder before it")
            return
        earlier = LeaseRecord.model_validate_json(last.data)
        if earlier.is_released:
            return
        self.takeovers[shard] += 1
        if 0 <= self._listed_at[process] - last.at < TTL_SECONDS:
            raise Violation(f"a lease was taken over {now - last.at:.0f} s after it moved")
        holder = self._processes[earlier.holder.pid]
        if not (holder.is_dead or holder.is_disturbed):
            raise Violation(f"the lease of process {holder.pid} was taken over, which is well")

    def _check_end(self, seconds: float) -> None:
        if self.keys.manifest not in self.store.objects:
            raise Violation("there is no manifest")
        if self.remade_after is not None:
            manifest = Manifest.model_validate_json(self.store.objects[self.keys.manifest].data)
            if manifest.inputs != {"source": self._source().manifest.first_sha256}:
                raise Violation("the artifact is that of the earlier input")
            for shard in manifest.shards:
                self._check_shard(shard, manifest.inputs["source"])
            return
        for shard in range(self.num_shards):
            doubles = self.works[shard] - 1 - self.broken_off[shard]
            if doubles > self.takeovers[shard]:
                raise Violation(
                    f"shard {shard} was made {self.works[shard]} times, "
                    f"with {self.takeovers[shard]} takeovers"
                )
        faults = sum(
            fate.seconds + 3 * TTL_SECONDS + self.simulation.restart_seconds + 4 * WORK_SECONDS
            for fate in self.simulation.fates.values()
        )
        most = faults + 4 * WORK_SECONDS * self.num_shards + 30
        if seconds > most:
            raise Violation(f"it took {seconds:.0f} s, where {most:.0f} s are enough")


def simulated(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine's clocks, threads and process be those of the simulation."""

    class Event:
        def __init__(self) -> None:
            self._is_set = False

        def set(self) -> None:
            self._is_set = True

        def is_set(self) -> bool:
            return self._is_set

        def wait(self, timeout: float | None = None) -> bool:
            simulation.wait(self.is_set, timeout)
            return self._is_set

    class Thread:
        def __init__(self, target: Callable[[], None], *, daemon: bool) -> None:
            self._target = target

        def start(self) -> None:
            self._thread = simulation.spawn(self._target)

        def join(self) -> None:
            simulation.wait(lambda: self._thread.is_over)

    class Silent:
        """A thread that reports progress: there is none to report to."""

        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            pass

        def join(self) -> None:
            pass

    clock = types.SimpleNamespace(monotonic=simulation.monotonic, sleep=simulation.sleep)
    threads = types.SimpleNamespace(Event=Event, Thread=Thread)
    monkeypatch.setattr("tasks.engine.lease.time", clock)
    monkeypatch.setattr("tasks.engine.lease.threading", threads)
    monkeypatch.setattr("tasks.engine.lease.this_process", lambda: simulation.process.holder)
    monkeypatch.setattr("tasks.engine.stage.time", clock)
    silent = types.SimpleNamespace(Event=Event, Thread=Silent)
    monkeypatch.setattr("tasks.engine.progress_log.threading", silent)
