"""Wrappers around ports of the product: a store that kills its caller, a sampler with other seeds.

They know a port by the names of its methods alone.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any


class Killed(Exception):
    """The run was killed at this place."""


@dataclass(frozen=True)
class DeadlyStore:
    """A store that kills whoever puts an object whose key matches the pattern."""

    store: Any
    pattern: str

    def write(self, key: str, data: bytes) -> None:
        self._check(key)
        self.store.write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._check(key)
        return bool(self.store.create(key, data))

    def upload(self, path: Path, key: str) -> None:
        self._check(key)
        self.store.upload(path, key)

    def _check(self, key: str) -> None:
        if fnmatchcase(key, self.pattern):
            raise Killed(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@dataclass(frozen=True)
class Reseeded:
    """A sampler that is given other seeds."""

    sampler: Any
    by: int
    """Added to every seed."""

    def sample(self, requests: Any, *, num_responses: int, seed: int) -> Any:
        return self.sampler.sample(requests, num_responses=num_responses, seed=seed + self.by)

    def close(self) -> None:
        self.sampler.close()
