"""Calls in flight: what happens to them when one fails, in an order that no clock decides."""

import threading

import pytest

from infra.judges.in_flight import results_in_flight
from tests.services.processes import NEVER_SECONDS


def test_after_a_failure_nothing_begins_and_what_is_in_flight_still_comes() -> None:
    over = threading.Event()
    begun: list[int] = []

    def call(number: int) -> int:
        begun.append(number)
        if number == 0:
            assert over.wait(NEVER_SECONDS)  # until the failure of 1 is seen
            return number
        raise ValueError("refused")

    results = results_in_flight(call, range(9), limit=2, over=over)
    assert next(results) == 0
    with pytest.raises(ValueError, match="refused"):
        next(results)
    assert sorted(begun) == [0, 1]
