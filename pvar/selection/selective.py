"""Lowest validation loss: leave out the pairs that a trained policy still gets wrong.

Selective DPO (arXiv 2502.09650) measures the difficulty of a pair by its validation loss: DPO's
loss −log σ(β·Δlog(π/π_ref)) under policies π that were trained with DPO on other pairs. It trains
on the easiest part of the data. The loss is measured here under one reward model of kind implicit,
whose policy is π; the measure is the mean loss of a prompt's pairs.

What differs from the source, as its paper and its code (github.com/glorgao/SelectiveDPO) have it:

- It cross-fits: each half of the data is scored by a policy trained on the other half, for three
  splits, at five points of the training, and averages these losses. Here one policy scores every
  pair, and it is the user's part that it was not trained on these pairs.
- It selects pairs, usually the easier half. Here the budget says how many prompts.
- It trains on the selected pairs from easy to difficult. Here the selection decides no order.

With one pair per prompt the loss falls with the implicit gap, so this selects the same prompts as
implicit_gap_large does under the same reward model. With several pairs it does not: a difficult
pair weighs more than an easy one.
"""

from pvar.selection.pair_losses import mean_of_known, pair_losses
from pvar.selection.strategy import FloatArray, Measure, Strategy, smallest_first


def _measure(gaps: FloatArray) -> FloatArray:
    """(P,) mean loss of a prompt's pairs in nats, at least 0."""
    return mean_of_known(pair_losses(gaps[0]))


SELECTIVE = Strategy(
    Measure(
        "implicit_loss",
        compute_from_gaps=_measure,
        implicit_models=("a policy that was trained on other pairs",),
    ),
    smallest_first,
)
