"""The training order of pairs: every epoch is shuffled separately and consists of whole steps.

    epoch e: a permutation seeded with seed + e, then its beginning again until the step is whole

An incomplete last step would depend on the hardware: accelerate fills it up with several processes
and leaves it short with one, and the mean over its batches weighs the rows of a short batch more.
So it is filled up here, by less than a step per epoch, with the first pairs of the epoch's order.
`num_steps` ends the last epoch early or begins further ones. All epochs are one list, from which
every process takes its part. So no sampler draws numbers, which could differ when a training
resumes from a checkpoint.
"""

import numpy as np

from pvar.train_config import TrainConfig


def steps_per_epoch(settings: TrainConfig, num_pairs: int) -> int:
    """Optimiser steps of one pass over the pairs; the last one is filled up."""
    return -(-num_pairs // settings.pairs_per_step)


def count_steps(settings: TrainConfig, num_pairs: int) -> int:
    """Optimiser steps of the whole training."""
    if settings.num_steps is not None:
        return settings.num_steps
    return settings.num_epochs * steps_per_epoch(settings, num_pairs)


def training_order(settings: TrainConfig, num_pairs: int) -> list[int]:
    """Indices of the pairs, `pairs_per_step` for each of `count_steps`.

    The permutations are those of accelerate's sampler. KTO's pairs stay as they are, beside their
    neighbours (`with_neighbours`).
    """
    num_steps, per_epoch = count_steps(settings, num_pairs), steps_per_epoch(settings, num_pairs)
    order: list[int] = []
    for epoch in range(-(-num_steps // per_epoch)):
        pairs = (
            range(num_pairs)
            if settings.method == "kto"
            else _shuffled(num_pairs, settings.seed + epoch)
        )
        order += np.resize(pairs, per_epoch * settings.pairs_per_step).tolist()  # repeats them
    return order[: num_steps * settings.pairs_per_step]


def _shuffled(num_pairs: int, seed: int) -> list[int]:
    import torch

    shuffled: list[int] = torch.randperm(
        num_pairs, generator=torch.Generator().manual_seed(seed)
    ).tolist()
    return shuffled
