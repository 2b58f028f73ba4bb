"""Batches stay within the budget, hold every row once, and shrink when memory runs out."""

from collections.abc import Mapping, Sequence

import pytest
import torch

from infra.rewards.batching import out_of_memory, run_in_batches

Ids = tuple[int, ...]


class Recorder:
    """Sums rows; runs out of memory above `capacity` padded tokens."""

    def __init__(self, capacity: int = 10**9) -> None:
        self.capacity = capacity
        self.batches: list[list[int]] = []
        """Lengths of the rows of each batch that was tried."""

    def __call__(self, rows: Sequence[Ids]) -> Mapping[Ids, int]:
        self.batches.append([len(row) for row in rows])
        if len(rows) * max(map(len, rows)) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return {row: sum(row) for row in rows}


def rows_of(*lengths: int) -> list[Ids]:
    return [(number, *[1] * (length - 1)) for number, length in enumerate(lengths, start=100)]


def run(rows: Sequence[Ids], recorder: Recorder, tokens_per_batch: int) -> dict[Ids, int]:
    return run_in_batches(
        rows, recorder, sizes=lambda row: (len(row),), tokens_per_batch=tokens_per_batch
    )


def test_batches_are_sorted_by_length_and_within_the_budget_of_padded_tokens() -> None:
    recorder = Recorder()

    run(rows_of(2, 9, 3, 8, 2, 3), recorder, tokens_per_batch=18)

    # 9+8 padded: 2·9 = 18. Then 3, 3, 2, 2 padded: 4·3 = 12.
    assert recorder.batches == [[9, 8], [3, 3, 2, 2]]


def test_every_row_has_its_own_result_whatever_the_order() -> None:
    rows = rows_of(2, 9, 3, 8, 2, 3)
    expected = {row: sum(row) for row in rows}

    assert run(rows, Recorder(), 18) == expected
    assert run(rows[::-1], Recorder(), 18) == expected


def test_batches_do_not_depend_on_order_or_repetition() -> None:
    rows = rows_of(4, 4, 4, 7, 7)
    once, shuffled = Recorder(), Recorder()

    run(rows, once, 8)
    run([*rows[::-1], rows[2]], shuffled, 8)

    assert once.batches == shuffled.batches


def test_row_above_the_budget_is_a_batch_of_its_own() -> None:
    recorder = Recorder()

    run(rows_of(50, 2), recorder, tokens_per_batch=10)

    assert recorder.batches == [[50], [2]]


def test_parts_that_are_padded_separately_count_separately() -> None:
    recorder = Recorder()
    rows = rows_of(6, 4, 4)

    run_in_batches(
        rows, recorder, sizes=lambda row: (len(row) - 2, 2 * row[0]), tokens_per_batch=412
    )

    # Sizes (4, 200), (2, 202), (2, 204): the first two pad to 2·(4 + 204) = 416 > 412,
    # the last two to 2·(2 + 204) = 412.
    assert recorder.batches == [[6], [4, 4]]


def test_batch_out_of_memory_is_halved_and_the_next_ones_start_small() -> None:
    recorder = Recorder(capacity=20)
    rows = rows_of(*[5] * 12)

    results = run(rows, recorder, tokens_per_batch=60)

    # 60 tokens fail, 30 fail, 15 fit: three rows at a time from there on.
    assert [len(batch) for batch in recorder.batches] == [12, 6, 3, 3, 3, 3]
    assert results == {row: sum(row) for row in rows}


def test_single_row_out_of_memory_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        run(rows_of(5, 30), Recorder(capacity=20), tokens_per_batch=60)


def test_other_errors_are_not_taken_for_memory() -> None:
    def broken(rows: Sequence[Ids]) -> Mapping[Ids, int]:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_in_batches(rows_of(1, 1), broken, sizes=lambda row: (1,), tokens_per_batch=8)


def test_memory_error_of_the_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)

    assert out_of_memory(caught.value)
