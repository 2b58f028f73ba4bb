"""Good and long rejected responses with a small reward gap: prompts that are answered evenly well.

Rejecting Instruction Preferences (arXiv 2501.18578) pairs the response y_w of the highest reward
with the response y_l of the lowest, and keeps the prompts that pass three filters:

    r(y_l) ≥ τ₁,      length(y_l) ≥ τ₂,      r(y_w) − r(y_l) ≤ τ₃.

Its thresholds are quantiles; with the median for all three, 4538 of 20 000 prompts were left. Here
all three thresholds are the same quantile, which follows from the budget. With u the rank of a
prompt from 0 to 1 (`mid_ranks.py`), the measure is

    min(u(r(y_l)), u(length(y_l)), u(r(y_l) − r(y_w))),

so that a prompt passes the three filters at the quantile t exactly when its measure is at least t,
and the largest measures are selected. The quantile of the budget is the cut value.

What differs from the source (definitions from its abstract and from public notes on the paper):

- It sets each threshold and takes what is left. Here the number is set, and no threshold alone.
- The length is in tokens of the policy's tokenizer. The notes do not say in which unit the
  source's is.
- With several reward models, rewards are means over the models of reward / scale.
- The pair is always that of pair rule best_worst, also if other pairs are trained on.
"""

import numpy as np

from pvar.errors import InputError
from pvar.selection.mid_ranks import mid_ranks
from pvar.selection.strategy import FloatArray, Measure, RewardMatrix, Strategy, largest_first


def _measure(rewards: RewardMatrix) -> FloatArray:
    """(P,) from 0 to 1; NaN for fewer than two rewards. InputError without lengths."""
    if rewards.num_tokens is None:
        raise InputError("the measure rip needs the lengths of the responses; give num_tokens")
    enough = rewards.num_rewards >= 2
    scaled, num_tokens = rewards.scaled[enough], rewards.num_tokens[enough]
    lowest = np.nanmin(scaled, axis=1)
    # Of several responses with the lowest reward the last one, as pair rule best_worst does.
    from_the_end = np.argmax((scaled == lowest[:, None])[:, ::-1], axis=1)
    lengths = num_tokens[np.arange(len(scaled)), -1 - from_the_end]
    gap = np.nanmax(scaled, axis=1) - lowest
    measure = np.full(len(enough), np.nan)
    measure[enough] = np.min([mid_ranks(lowest), mid_ranks(lengths), mid_ranks(-gap)], axis=0)
    return measure


RIP = Strategy(Measure("rip", _measure, needs_num_tokens=True), largest_first)
