"""Largest entropy of the preference of several reward models: the ensemble's uncertainty sampling.

The measure is the mean over the pairs of a prompt's responses of

    H(p̄_ij) = −p̄ log p̄ − (1 − p̄) log(1 − p̄),      p̄_ij = mean over models of σ((r_i − r_j)/τ),

the predictive entropy of an ensemble (arXiv 1612.01474): large where each model is undecided and
where the models contradict each other. `disagreement` is large in the second case only.

It needs two reward models: one is no ensemble, and as the entropy falls with (p − ½)², its order
would be nearly that of `bottom`.

What differs from Active Preference Learning (arXiv 2402.08114, and its implementation in
github.com/sail-sg/oat): its entropy is that of the policy, −log π(y|x) averaged over sampled
responses, by which it takes prompts first; of these it takes the pairs with the largest difference
of implicit rewards, the most certain ones. The log-probabilities of sampled responses are not
recorded here, so the entropy is that of the preferences, and no second step follows. It also
selects and trains in turns; here one selection precedes the training.
"""

from pvar.combine import preference_entropy
from pvar.selection.strategy import FloatArray, Measure, RewardMatrix, Strategy, largest_first


def _measure(rewards: RewardMatrix) -> FloatArray:
    """(P,) in nats, from 0 to log 2."""
    return preference_entropy(rewards.rewards, scales=rewards.scales)


ENTROPY = Strategy(Measure("entropy", _measure, min_models=2), largest_first)
