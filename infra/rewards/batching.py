"""Batches by a token budget over length-sorted rows; smaller ones when memory runs out.

A batch is padded to its longest row, so its cost is (number of rows) · (longest row). Sorting by
length keeps padding near zero; taking the longest rows first brings an out-of-memory error at the
start and not after hours. Sorting also makes the batches a function of the set of rows: neither
their order nor repetitions change a result. Results are joined to rows by key, never by position.
"""

import gc
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

RowT = TypeVar("RowT", bound=tuple[object, ...])
KeyT = TypeVar("KeyT")
ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


def run_in_batches(
    rows: Iterable[RowT],
    run: Callable[[Sequence[RowT]], Mapping[KeyT, ResultT]],
    *,
    sizes: Callable[[RowT], tuple[int, ...]],
    tokens_per_batch: int,
) -> dict[KeyT, ResultT]:
    """Results of `run` over all distinct rows, in batches of at most `tokens_per_batch`.

    `sizes` gives the lengths, in tokens, of the separately padded parts of a row (often one); rows
    are sorted by it. A row above the budget is a batch of its own. If a batch runs out of memory,
    it and the budget of later batches are halved. If a single row does, torch's error is raised.
    """
    pending = sorted(set(rows), key=lambda row: (sizes(row), row))  # the longest at the end
    results: dict[KeyT, ResultT] = {}
    budget = tokens_per_batch
    while pending:
        batch = _take(pending, sizes, budget)
        done = _try(run, batch)
        if done is None:
            budget = _padded_tokens(batch, sizes) // 2
            logger.warning(
                "a batch of %d rows ran out of memory; now %d tokens", len(batch), budget
            )
            pending += reversed(batch)
        else:
            results.update(done)
    return results


def _take(pending: list[RowT], sizes: Callable[[RowT], tuple[int, ...]], budget: int) -> list[RowT]:
    """Move at least one row from the end of `pending` into a batch."""
    batch = [pending.pop()]
    while pending and _padded_tokens([*batch, pending[-1]], sizes) <= budget:
        batch.append(pending.pop())
    return batch


def _padded_tokens(batch: Sequence[RowT], sizes: Callable[[RowT], tuple[int, ...]]) -> int:
    widest: list[int] = [max(part) for part in zip(*map(sizes, batch), strict=True)]
    return len(batch) * sum(widest)


def _try(
    run: Callable[[Sequence[RowT]], Mapping[KeyT, ResultT]], batch: Sequence[RowT]
) -> Mapping[KeyT, ResultT] | None:
    """The batch's results, or None if several rows ran out of memory."""
    try:
        return run(batch)
    except RuntimeError as error:
        if len(batch) == 1 or not out_of_memory(error):
            raise
    _free()  # only here is the traceback gone, which held the batch's tensors
    return None


def out_of_memory(error: Exception) -> bool:
    """Whether torch ran out of memory on a GPU or on the CPU (detected by the message)."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _free() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()
