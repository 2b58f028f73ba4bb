"""Calling a slow function many times at once, and never more than a given number at a time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def results_in_flight(
    function: Callable[[Item], Result], items: Iterable[Item], *, limit: int, over: Event
) -> Iterator[Result]:
    """Results in the order of completion, with at most `limit` (≥ 1) calls at a time.

    An item is taken only when its call begins, and that after the result before it was taken in:
    what the consumer has not seen is at most what is in flight. After a first exception no call
    begins, the results of those in flight still come, and it is raised. `over` is set then, and
    when the consumer leaves: it tells calls that wait to give up.
    """
    waiting = iter(items)
    failed: Future[Result] | None = None
    with ThreadPoolExecutor(limit, thread_name_prefix="judge") as pool:
        try:
            calls = {pool.submit(function, item) for item in islice(waiting, limit)}
            while calls:
                done, calls = wait(calls, return_when=FIRST_COMPLETED)
                for call in done:
                    if call.exception() is None:
                        yield call.result()
                    else:
                        failed = failed or call
                        over.set()
                    if failed is None:
                        calls |= {pool.submit(function, item) for item in islice(waiting, 1)}
        finally:
            over.set()
    if failed is not None:
        failed.result()
