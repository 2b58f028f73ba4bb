"""The order in which pairs are trained on: every epoch in an order of its own, in whole steps.

    epoch e: a permutation seeded with seed + e, then its beginning again until the step is whole

A last step that is not whole would depend on the hardware: accelerate fills it up where several
processes train and leaves it short where one does, and the mean over its batches weighs the rows of
a short batch more. So it is filled up here, by less than a step per epoch, with pairs that the
epoch's chance puts first. All epochs are one list, from which every process takes its part: nothing
is left for a sampler to draw, or to draw otherwise when a training goes on from a checkpoint.
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
