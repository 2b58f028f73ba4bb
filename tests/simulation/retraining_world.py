"""Retrainings of one store on machines whose clocks differ, and what must hold of its batches.

The pipeline is a script: it takes a while, and its runs end as the list of ends says. All else is
the product's: the lease, the states of batches, attempts and their ends.

    done          is recorded once, and stays; a batch that is done is not run again
    an attempt    counts only if its run failed, or its process was killed or stopped past its lease
    set aside     only what failed `MAX_ATTEMPTS` times; nothing else but done is the end of a batch
"""

import types
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from flows import retrain_batch, retraining
from flows.retrain_exam import WithExam
from pvar.errors import LeaseError, StageError, StoreError, UnavailableError
from pvar.retrain_decision import Batch
from tasks.engine.lease import LeaseRecord, hold
from tasks.retraining.batch_states import VANISHED, RetrainingBatch
from tasks.retraining.batches import LEASE, folder_of, to_json
from tests.simulation.memory_store import Effect, MemoryStore, StoredObject
from tests.simulation.scheduler import BEGAN, Process, Simulation, Violation

MAX_ATTEMPTS = 2
RUN_SECONDS = 70.0

_ENDS = ("outage.json", "waiting.json", "done.json")

RunEnd = Literal["succeeds", "fails", "outage", "waits"]


@dataclass
class RetrainingWorld:
    """Retrainings by some workers until each batch is done or set aside."""

    simulation: Simulation
    folder: Path
    ends: Sequence[RunEnd] = ()
    """How the runs end, in the order in which they begin; those after the last one succeed."""
    num_batches: int = 1
    num_workers: int = 2
    runs: Counter[int] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)
    takeovers: int = 0
    """From processes that are alive, and were stopped."""

    def __post_init__(self) -> None:
        self.simulation.errors = (StoreError, LeaseError, UnavailableError, StageError)
        self.store = MemoryStore(self.simulation, self._check)
        self._num_runs = 0
        self._open: dict[Process, int] = {}
        self._processes: dict[int, Process] = {}
        self._waiting_runs: set[str] = set()
        for number in range(1, self.num_batches + 1):
            batch = Batch(
                number=number, created_at=BEGAN, data="x", files=(), duplicates=(), reasons=()
            )
            put = StoredObject(to_json(batch), -number, 0.0)
            self.store.objects[f"{folder_of(number)}/batch.json"] = put

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run the workers until all batches have ended."""
        waiting = types.SimpleNamespace(waiting=types.SimpleNamespace(sentence="waits"))

        def load(_: object, run: str) -> Any:
            is_waiting = run in self._waiting_runs
            return types.SimpleNamespace(run=run, waiting_node=waiting if is_waiting else None)

        def waiting_run(record: RetrainingBatch, _: object) -> Any:
            return None if record.waiting is None else load(None, record.waiting.run)

        def configured(batch: Batch, *_: object) -> Any:
            return WithExam(config=batch.number)  # type: ignore[arg-type]

        monkeypatch.setattr(retrain_batch, "pipeline", self._pipeline)
        monkeypatch.setattr(retrain_batch, "load_run", load)
        monkeypatch.setattr(retrain_batch, "_waiting_run", waiting_run)
        monkeypatch.setattr(retrain_batch, "can_go_on", lambda *_: True)
        monkeypatch.setattr(
            retrain_batch, "resumed", lambda run, *_: WithExam(config=int(run.run.split("-")[0]))
        )
        monkeypatch.setattr(retrain_batch, "_configuration", configured)
        monkeypatch.setattr(retrain_batch, "is_held_for_labels", lambda *_: None)
        for worker in range(self.num_workers):
            self.simulation.start(worker, self._retrain, after=worker * 0.5)
        self.simulation.run()
        self._check_end()

    def _retrain(self, process: Process) -> None:
        self._processes[process.pid] = process
        wiring: Any = types.SimpleNamespace(
            store=self.store,
            clock=self.simulation.wall_clock,
            settings=types.SimpleNamespace(home=self.folder / str(process.worker)),
        )
        config: Any = types.SimpleNamespace(max_attempts=MAX_ATTEMPTS, hold=None)
        while not all(self._has_ended(number) for number in range(1, self.num_batches + 1)):
            with hold(self.store, LEASE):
                unfinished = retraining._unfinished(config, wiring, wiring.clock())
                for record in unfinished.to_run:
                    retrain_batch.run_batch(record, config, wiring)
            self.simulation.sleep(400)

    def _has_ended(self, number: int) -> bool:
        folder = folder_of(number)
        return any(f"{folder}/{name}.json" in self.store.objects for name in ("done", "set-aside"))

    def _pipeline(self, number: int) -> str:
        if f"{folder_of(number)}/done.json" in self.store.objects and not self.takeovers:
            raise Violation(f"batch {number} is done and is run again")
        end = self.ends[self._num_runs] if self._num_runs < len(self.ends) else "succeeds"
        self._num_runs += 1
        self.runs[number] += 1
        self.simulation.sleep(RUN_SECONDS)
        name = f"{number}-{self._num_runs}"
        if end == "outage":
            raise UnavailableError("the server does not answer")
        if end == "fails":
            self.failures[number] += 1
            raise StageError("the data are bad")
        if end == "waits":
            self._waiting_runs.add(name)
        return name

    def _check(self, effect: Effect) -> None:
        if effect.verb == "list":
            return
        name = effect.key.rpartition("/")[2]
        if name == "done.json" and effect.before is not None:
            raise Violation(f"{effect.key} was changed")
        if effect.key.startswith(f"{LEASE}/") and effect.before is None and effect.data:
            epoch = int(name.removesuffix(".json"))
            last = self.store.objects.get(f"{LEASE}/{epoch - 1:06d}.json")
            record = LeaseRecord.model_validate_json(last.data) if last else None
            if record and not record.is_released and not self._processes[record.holder.pid].is_dead:
                self.takeovers += 1

        folder, _, name = effect.key.rpartition("/")
        if name.startswith("attempt-") and effect.data and b'"error": null' in effect.data:
            self._open[self.simulation.process] = int(folder.rpartition("/")[2])
        elif name.startswith("attempt-") or (name in _ENDS and effect.verb != "delete"):
            self._open.pop(self.simulation.process, None)

    def _check_end(self) -> None:
        broken_off = Counter(self._open.values())
        for key in [key for key in self.store.objects if key.endswith("/batch.json")]:
            number = int(key.split("/")[2])
            record = self._record(number)
            vanished = sum(attempt.error == VANISHED for attempt in record.attempts)
            most = broken_off[number] + self.takeovers
            if vanished > most:
                raise Violation(f"batch {number}: {vanished} runs count as killed, {most} were")
            failed = sum(attempt.error not in (None, VANISHED) for attempt in record.attempts)
            if failed > self.failures[number]:
                raise Violation(f"batch {number}: {failed} runs count as failed")
            if record.set_aside and vanished + failed < MAX_ATTEMPTS and not self.takeovers:
                raise Violation(f"batch {number} is set aside, though {vanished + failed} failed")
            if record.set_aside and record.done and not self.takeovers:
                raise Violation(f"batch {number} is done and set aside")

    def _record(self, number: int) -> RetrainingBatch:
        from tasks.retraining.batch_states import find_record

        found: list[RetrainingBatch] = []
        quiet = Simulation(0)
        store = MemoryStore(quiet, lambda _: None)
        store.objects = self.store.objects
        quiet.start(0, lambda _: found.append(find_record(store, number)))
        quiet.run()
        return found[0]
