"""The monotonic clock by which leases are watched, moved by the test."""

from dataclasses import dataclass

import pytest

from tasks.engine.lease_holder import this_process

ELSEWHERE = this_process().model_copy(update={"host": "another-machine", "boot_id": "other"})
"""A holder whose process cannot be seen from here: only its heartbeat counts."""


@dataclass
class LeaseTime:
    """Stands still until it is moved, or somebody sleeps."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def stepped_time(monkeypatch: pytest.MonkeyPatch) -> LeaseTime:
    """The time that leases see from now on."""
    stepped = LeaseTime()
    monkeypatch.setattr("tasks.engine.lease.time", stepped)
    return stepped
