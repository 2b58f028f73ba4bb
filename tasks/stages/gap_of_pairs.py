"""The implicit gaps of the pairs to train on: the difference of a tuned policy's rewards.

    gap = r(x, chosen) − r(x, rejected),  r = β · (log π − log π_ref)

The other reward models decide which answer is chosen. If the gap is small or negative, the policy
does not distinguish them yet (arXiv 2508.04149). It is measured for sampled responses only.

Axes: I implicit reward models, P prompts, J pairs of a prompt.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pvar.records import Pair, Score
from tasks.stages.reward_matrix import Rewards


def implicit_gaps(
    rewards: Rewards, pairs: Sequence[Pair], implicit: Sequence[Sequence[Score]]
) -> NDArray[np.float64]:
    """(I, P, J) gaps of each prompt's pairs, in the order of the pairs; NaN where there is none.

    implicit: the scores of each model. A pair without the rewards of all models has no gap.
    """
    by_id = [{score.response_id: score.reward for score in scores} for scores in implicit]
    by_text = {
        (response.prompt_id, response.text): [model.get(response.response_id) for model in by_id]
        for response in rewards.responses
    }
    nothing = [None] * len(implicit)
    gaps: dict[str, list[list[float]]] = defaultdict(list)
    for pair in pairs:
        chosen, rejected = (
            by_text.get((pair.prompt_id, text), nothing) for text in (pair.chosen, pair.rejected)
        )
        of_models = [
            better - worse
            for better, worse in zip(chosen, rejected, strict=True)
            if better is not None and worse is not None
        ]
        if len(of_models) == len(implicit):
            gaps[pair.prompt_id].append(of_models)
    width = max(map(len, gaps.values()), default=0)
    array = np.full((len(implicit), len(rewards.prompts), width), np.nan)
    for row, prompt in enumerate(rewards.prompts):
        for column, of_models in enumerate(gaps.get(prompt.prompt_id, ())):
            array[:, row, column] = of_models
    return array
