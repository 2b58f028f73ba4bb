"""Whole steps of every pair, in the order that accelerate's own sampler would draw."""

from typing import Any

import pytest
from accelerate.data_loader import SeedableRandomSampler  # type: ignore[import-untyped,unused-ignore]
from hypothesis import given
from hypothesis import strategies as st

from pvar.train_config import TrainConfig
from tasks.training.order import training_order


def order(num_pairs: int, **settings: Any) -> list[int]:
    return training_order(TrainConfig.model_validate(settings), num_pairs)


def test_an_epoch_has_every_pair_and_is_filled_up_with_its_own_beginning() -> None:
    found = order(9, pairs_per_step=4, num_epochs=2)
    first, second = found[:12], found[12:]  # 9 pairs make 3 steps of 4
    assert len(second) == 12
    for epoch in (first, second):
        assert sorted(epoch[:9]) == list(range(9))
        assert epoch[9:] == epoch[:3]
    assert first != second


def test_fewer_pairs_than_a_step_take_turns() -> None:
    a, b = order(2, pairs_per_step=5)[:2]
    assert order(2, pairs_per_step=5) == [a, b, a, b, a]


def test_whole_steps_are_in_the_order_of_accelerates_sampler() -> None:
    sampler = SeedableRandomSampler(range(8), data_seed=3)
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        epochs += list(sampler)
    assert order(8, pairs_per_step=4, num_epochs=3, seed=3) == epochs


@pytest.mark.parametrize("method", ["dpo", "kto"])
@given(num_pairs=st.integers(1, 40), pairs_per_step=st.integers(2, 9), num_steps=st.integers(1, 30))
def test_a_number_of_steps_ends_the_passes_early_or_begins_further_ones(
    method: str, num_pairs: int, pairs_per_step: int, num_steps: int
) -> None:
    settings = {"method": method, "pairs_per_step": pairs_per_step, "seed": 3}
    found = order(num_pairs, num_steps=num_steps, **settings)
    assert len(found) == num_steps * pairs_per_step
    # Each epoch has at least one step, so this many are enough.
    assert found == order(num_pairs, num_epochs=num_steps, **settings)[: len(found)]


def test_passes_of_a_number_of_steps_are_in_different_orders() -> None:
    found = order(16, pairs_per_step=4, num_steps=10)  # two passes and a half
    first, second, rest = found[:16], found[16:32], found[32:]
    assert sorted(first) == sorted(second) == list(range(16))
    assert len({tuple(first[:8]), tuple(second[:8]), tuple(rest)}) == 3
    assert len(set(rest)) == 8


def test_pairs_of_kto_stay_beside_their_neighbours() -> None:
    kto = {"method": "kto", "pairs_per_step": 2, "num_epochs": 2}
    assert order(3, **kto) == [0, 1, 2, 0, 0, 1, 2, 0]
