"""A store in memory, whose calls are those of a simulation, and which shows each effect to a check.

Effect("create", "stage/ab/leases/00000/000001.json", before=None, data=b"…")
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, cast

from pvar.errors import NotFoundError
from pvar.ports import ObjectInfo
from tests.simulation.scheduler import BEGAN, Simulation


class Effect(NamedTuple):
    """A change of the store, or a listing, which is about to happen."""

    verb: str
    key: str
    before: bytes | None
    """The object that is there."""
    data: bytes | None
    """What is put; None for a deletion or a listing."""


class StoredObject(NamedTuple):
    """An object, and when it was put."""

    data: bytes
    version: int
    at: float


class MemoryStore:
    """A `Store`. Every call can have a fate of its own."""

    uri = "memory://store"

    def __init__(self, simulation: Simulation, check: Callable[[Effect], None]) -> None:
        self.objects: dict[str, StoredObject] = {}
        self._simulation = simulation
        self._check = check
        self._num_puts = 0

    def read(self, key: str) -> bytes:
        def effect() -> bytes:
            if key not in self.objects:
                raise NotFoundError(f"{self.uri}: there is no object {key!r}")
            return self.objects[key].data

        return cast(bytes, self._simulation.call(effect))

    def write(self, key: str, data: bytes) -> None:
        self._simulation.call(lambda: self._put("write", key, data))

    def create(self, key: str, data: bytes) -> bool:
        def effect() -> bool:
            if key in self.objects:
                return False
            self._put("create", key, data)
            return True

        return cast(bool, self._simulation.call(effect))

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.read(key))

    def upload(self, path: Path, key: str) -> None:
        data = path.read_bytes()
        self._simulation.call(lambda: self._put("upload", key, data))

    def list(self, prefix: str, depth: int | None = None) -> Iterator[ObjectInfo]:
        def effect() -> list[ObjectInfo]:
            self._check(Effect("list", prefix, None, None))
            return [
                ObjectInfo(key, len(put.data), BEGAN + timedelta(seconds=put.at), str(put.version))
                for key, put in sorted(self.objects.items())
                if key.startswith(prefix)
                and (depth is None or key.count("/", len(prefix)) <= depth)
            ]

        yield from cast("list[ObjectInfo]", self._simulation.call(effect))

    def delete(self, key: str) -> None:
        def effect() -> None:
            if key in self.objects:
                self._check(Effect("delete", key, self.objects[key].data, None))
                del self.objects[key]

        self._simulation.call(effect)

    def _put(self, verb: str, key: str, data: bytes) -> None:
        before = self.objects.get(key)
        self._check(Effect(verb, key, before.data if before else None, data))
        self._num_puts += 1
        self.objects[key] = StoredObject(data, self._num_puts, self._simulation.now)
