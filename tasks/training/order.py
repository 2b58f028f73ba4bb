"""The training order of pairs: every epoch is shuffled separately and consists of whole steps.

    epoch e: a permutation seeded with seed + e, then its beginning again until the step is whole

An incomplete last step would depend on the hardware: accelerate fills it up with several processes
and leaves it short with one, and the mean over its batches weighs the rows of a short batch more.
So it is filled up here, by less than a step per epoch, with the first pairs of the epoch's order.
All epochs are one list, from which every process takes its part. So no sampler draws numbers, which
could differ when a training resumes from a checkpoint.
"""

import numpy as np

from pvar.config import TrainConfig


def training_order(settings: TrainConfig, num_pairs: int) -> list[int]:
    """Indices of the pairs, over all epochs; a multiple of `pairs_per_step` for each.

    The permutations are those of accelerate's sampler. KTO's pairs stay as they are, beside their
    neighbours (`with_neighbours`).
    """
    num_per_epoch = -(-num_pairs // settings.pairs_per_step) * settings.pairs_per_step
    order: list[int] = []
    for epoch in range(settings.num_epochs):
        pairs = (
            range(num_pairs)
            if settings.method == "kto"
            else _shuffled(num_pairs, settings.seed + epoch)
        )
        order += np.resize(pairs, num_per_epoch).tolist()  # repeats them
    return order


def _shuffled(num_pairs: int, seed: int) -> list[int]:
    import torch

    shuffled: list[int] = torch.randperm(
        num_pairs, generator=torch.Generator().manual_seed(seed)
    ).tolist()
    return shuffled
