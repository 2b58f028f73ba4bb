"""Call a slow function concurrently, with a maximum number of calls in flight."""

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
    """Yield results in the order of completion, with at most `limit` (≥ 1) calls in flight.

    An item is taken only when its call starts, after the consumer has taken the previous result.
    So only the results in flight are unseen by the consumer. After the first exception no call
    starts, the results in flight are still yielded, and then it is raised. `over` is set then, and
    when the consumer stops, so that waiting calls give up.
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
