"""The implicit gap of a prompt: a tuned policy's reward difference of the pair to train on.

    gap[x] = r(x, chosen) − r(x, rejected),  r = β · (log π − log π_ref)

The other reward models decide which answer is chosen. If the gap is small or negative, the policy
does not distinguish them yet (arXiv 2508.04149). It is measured for sampled responses only.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pvar.records import Pair, Score
from tasks.stages.reward_matrix import Rewards


def implicit_gap(
    rewards: Rewards, pairs: Sequence[Pair], implicit: Sequence[Score]
) -> NDArray[np.float64]:
    """(P,) mean gap over a prompt's pairs, in rewards; NaN if no pair has both rewards."""
    by_id = {score.response_id: score.reward for score in implicit}
    by_text = {
        (response.prompt_id, response.text): by_id.get(response.response_id)
        for response in rewards.responses
    }
    gaps: dict[str, list[float]] = defaultdict(list)
    for pair in pairs:
        chosen, rejected = (
            by_text.get((pair.prompt_id, text)) for text in (pair.chosen, pair.rejected)
        )
        if chosen is not None and rejected is not None:
            gaps[pair.prompt_id].append(chosen - rejected)
    return np.array(
        [
            float(np.mean(gaps[prompt.prompt_id])) if prompt.prompt_id in gaps else np.nan
            for prompt in rewards.prompts
        ]
    )
