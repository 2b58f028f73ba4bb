"""Trainings that make no sense are refused when the configuration is read."""

import pytest

from infra.presets import load_config
from pvar.errors import ConfigError

KTO = ["train.method=kto", "train.pairs_per_step=8"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.method=simpo"], "set simpo_gamma for method simpo"),
        (["train.simpo_gamma=0.5"], "train.method is dpo and train.simpo_gamma is 0.5"),
        ([*KTO, "runtime.pairs_per_device=4"], r"must equal runtime.pairs_per_device \(4\) times"),
        (
            ["train.method=kto", "train.pairs_per_step=1", "runtime.pairs_per_device=1"],
            "from responses to other prompts in the batch",
        ),
        (
            ["train.pairs_per_step=8", "runtime.pairs_per_device=4", "runtime.num_processes=3"],
            r"not a multiple of runtime.pairs_per_device \(4\) times runtime.num_processes \(3\)",
        ),
        (["train.method=ppo"], "train.method"),
        (
            ["train.num_steps=50", "train.num_epochs=3"],
            "train.num_steps is 50 and train.num_epochs is 3.*leave out one of the two",
        ),
        (["train.num_steps=0"], "train.num_steps"),
        (["runtime.sharding=zero"], "runtime.sharding"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, changes)


@pytest.mark.parametrize(
    "changes",
    [
        ["train.method=simpo", "train.simpo_gamma=0.5", "train.beta=2"],
        [*KTO, "runtime.pairs_per_device=8"],
        [*KTO, "runtime.pairs_per_device=4", "runtime.num_processes=2"],
        ["train.method=orpo"],
        ["train.num_steps=50"],
        ["runtime.sharding=fsdp", "runtime.num_processes=2"],
    ],
)
def test_others_are_not(changes: list[str]) -> None:
    load_config(None, changes)


def test_how_processes_share_the_work_is_no_part_of_the_training() -> None:
    one, two = (
        load_config(None, ["runtime.pairs_per_device=2", f"runtime.num_processes={number}"])
        for number in (1, 2)
    )
    assert one.train == two.train
