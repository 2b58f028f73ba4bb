"""Medium loss difference and medium implicit reward margin: pairs neither useless nor overfitted.

LossDiff-IRM (arXiv 2510.13212) approximates the influence of a pair on the loss of validation data
by two scores. With ℓ(θ) = −log σ(IRM(θ)), DPO's loss of the pair, θ the policy after a warm-up and
θ_val a policy tuned on validation pairs:

    IRM = β·Δlog(π_θ/π_ref) of chosen minus rejected,      LossDiff = ℓ(θ) − ℓ(θ_val).

It keeps the pairs for which both lie in a medium range between two quantiles. The scores are these
definitions, with two reward models of kind implicit: the first one's policy is θ, the second one's
is θ_val, and both have the same reference and β. With one model LossDiff would be a function of
IRM, so one is not enough.

For a budget, the range grows around the median until it holds enough prompts. With u the rank of a
prompt from 0 to 1 (`mid_ranks.py`), the measure is

    max(|u(LossDiff) − ½|, |u(IRM) − ½|),

so that a prompt lies between the quantiles ½ − w and ½ + w of both exactly when its measure is at
most w, and the smallest measures are selected. Scores that differ by rounding alone are equal, so
that a rank depends neither on the order of a sum nor on the machine.

What differs from the source (definitions from its abstract and a published summary of the paper):

- Its quantiles are settings, and need not lie symmetrically around the median.
- It selects pairs. Here both scores are means over a prompt's pairs, and prompts are selected.
- The warm-up and the tuning on validation pairs are runs of their own, which the user makes. The
  source continues the training from θ; here it starts from the policy of the run, which may be θ.
"""

import numpy as np

from pvar.selection.mid_ranks import mid_ranks
from pvar.selection.pair_losses import mean_of_known, pair_losses
from pvar.selection.strategy import FloatArray, Measure, Strategy, smallest_first

DECIMALS = 9
"""Of the scores, in nats: far below what log-probabilities in float32 resolve."""


def _measure(gaps: FloatArray) -> FloatArray:
    """(P,) half the width of the narrowest medium range with the prompt, from 0 to ½."""
    margins, validation_margins = gaps[:2]
    loss_difference = mean_of_known(pair_losses(margins) - pair_losses(validation_margins))
    scores = (loss_difference, mean_of_known(margins))
    ranks = (mid_ranks(np.round(score, DECIMALS)) for score in scores)
    width: FloatArray = np.maximum(*(np.abs(rank - 0.5) for rank in ranks))
    return width


LOSSDIFF_IRM = Strategy(
    Measure(
        "lossdiff_irm",
        compute_from_gaps=_measure,
        implicit_models=("the policy after a warm-up", "a policy tuned on validation pairs"),
    ),
    smallest_first,
)
