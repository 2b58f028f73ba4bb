"""The implicit gap of a prompt: what a tuned policy's own reward says of the pair to be trained on.

    gap[x] = r(x, chosen) − r(x, rejected),  r = β · (log π − log π_ref)

Which answer is chosen is said by the other reward models. Small or negative: the policy does not
tell them apart yet (arXiv 2508.04149). Not measured for answers that were not sampled.
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
    """(P,) mean gap over a prompt's pairs, in rewards; NaN where none has both of its rewards."""
    by_id = {score.response_id: score.reward for score in implicit}
    by_text = {
        (each.prompt_id, each.text): by_id.get(each.response_id) for each in rewards.responses
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
