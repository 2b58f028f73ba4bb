"""Processes that promote their versions of one model, and what must hold of its history.

The history and the moves of the aliases are the product's; MLflow is a table of aliases, of which
each call can have a fate of its own.

    a promotion    has its decision in the store before, and takes the place of the champion with
                   which its version was compared: the history is a chain
    an error       of a lost race means that the version is not the champion
    the alias      names the newest move in the end, and nobody is said to have moved it by hand
"""

import types
from dataclasses import dataclass, field
from typing import Any, cast

from infra.promotion_history import Move
from infra.registered_models import RegisteredModels
from infra.registry import CHAMPION, MlflowRegistry
from pvar.errors import LostRaceError, StoreError
from pvar.ports import RegisteredVersion
from tests.simulation.memory_store import Effect, MemoryStore
from tests.simulation.scheduler import Process, Simulation, Violation

MODEL = "simulated"


class SimulatedRegistry(MlflowRegistry):
    """The product's registry over a table of aliases."""

    def __init__(self, simulation: Simulation, store: MemoryStore, aliases: dict[str, int]) -> None:
        RegisteredModels.__init__(self, cast(Any, types.SimpleNamespace(tracking_uri="")), store)
        self._simulation = simulation
        self._aliases = aliases

    def version_of_alias(self, model_name: str, alias: str) -> RegisteredVersion | None:
        number = cast("int | None", self._simulation.call(lambda: self._aliases.get(alias)))
        return None if number is None else RegisteredVersion(model_name, number, None)

    def set_alias(self, model_name: str, alias: str, version: int | None) -> None:
        def effect() -> None:
            if version is None:
                self._aliases.pop(alias, None)
            else:
                self._aliases[alias] = version

        self._simulation.call(effect)

    def model(self, model_name: str) -> Any:
        return types.SimpleNamespace(tags={})

    def has_files(self, version: RegisteredVersion) -> bool:
        return True


@dataclass
class PromotionWorld:
    """Workers that each compare a version with the champion, decide, and promote it."""

    simulation: Simulation
    num_workers: int = 2
    compared: dict[int, int | None] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.simulation.errors = (StoreError,)
        self.store = MemoryStore(self.simulation, self._check)
        self.aliases: dict[str, int] = {}

    def run(self) -> int:
        """Run the workers until each has promoted its version or lost; the number of moves."""
        for worker in range(self.num_workers):
            self.simulation.start(worker, self._promote)
        self.simulation.run()
        # Whoever looks finishes what a killed one left.
        self.simulation.fates = {}
        self.simulation.start(self.num_workers, self._look)
        self.simulation.run()
        return self._check_end()

    def _registry(self) -> SimulatedRegistry:
        return SimulatedRegistry(self.simulation, self.store, self.aliases)

    def _promote(self, process: Process) -> None:
        registry, number = self._registry(), process.worker + 1
        if number not in self.compared:
            champion = registry.champion(MODEL)
            self.simulation.sleep(1.0)
            self.store.create(f"decisions/{number}.json", str(champion).encode())
            self.compared[number] = champion and champion.version
        before = self.compared[number]
        instead_of = None if before is None else RegisteredVersion(MODEL, before, None)
        version = RegisteredVersion(MODEL, number, None)
        try:
            registry.promote(version, instead_of=instead_of, reason="better", by="simulation")
        except LostRaceError:
            self.lost.add(number)

    def _look(self, _: Process) -> None:
        self._registry().champion(MODEL)

    def _moves(self) -> list[Move]:
        keys = sorted(key for key in self.store.objects if key.endswith(".json"))
        return [
            Move.model_validate_json(self.store.objects[key].data)
            for key in keys
            if key.startswith("registry/")
        ]

    def _check(self, effect: Effect) -> None:
        if not effect.key.startswith("registry/") or effect.verb == "list":
            return
        if effect.verb != "create" or effect.before is not None:
            raise Violation(f"the history was changed: {effect.verb} {effect.key}")
        if effect.key.endswith(".done"):
            return
        move = Move.model_validate_json(effect.data or b"")
        moves = self._moves()
        champion = moves[-1].to_version if moves else None
        if move.kind != "promotion" or move.to_version is None:
            raise Violation(f"a move {move.kind} to {move.to_version}, which nobody made")
        if f"decisions/{move.to_version}.json" not in self.store.objects:
            raise Violation(f"version {move.to_version} was promoted without a decision")
        if move.from_version != champion or self.compared[move.to_version] != champion:
            raise Violation(f"version {move.to_version} replaced {champion}, and not its opponent")

    def _check_end(self) -> int:
        moves = self._moves()
        promoted = {move.to_version for move in moves}
        if moves[-1].to_version in self.lost:
            raise Violation(f"version {moves[-1].to_version} is champion, and was told otherwise")
        if set(range(1, self.num_workers + 1)) - promoted - self.lost:
            raise Violation("a promotion was lost")
        if self.aliases.get(CHAMPION) != moves[-1].to_version:
            raise Violation(
                f"the alias names {self.aliases.get(CHAMPION)}, the history {moves[-1].to_version}"
            )
        return len(moves)
