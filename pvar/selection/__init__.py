"""Selection of prompts: candidates and a budget in, the chosen prompt ids out.

    measures = measure_rewards(RewardMatrix(rewards, scales))
    chosen = select(Candidates(prompt_ids, measures), "top", Budget(fraction=0.1), seed=0)

One strategy per file, listed in `strategies.py`. A strategy says what it measures and which prompts
come first; budget, ties and accounts are the same for all (`choose.py`).
"""

from pvar.selection.candidates import Budget, Candidates
from pvar.selection.choose import Selection, select
from pvar.selection.measure import measure_by_prompt, measure_rewards
from pvar.selection.strategies import (
    CONTROL,
    MEASURES,
    STRATEGIES,
    MatchedStrategyName,
    StrategyName,
)
from pvar.selection.strategy import Measure, RewardMatrix, Strategy

__all__ = [
    "CONTROL",
    "MEASURES",
    "STRATEGIES",
    "Budget",
    "Candidates",
    "MatchedStrategyName",
    "Measure",
    "RewardMatrix",
    "Selection",
    "Strategy",
    "StrategyName",
    "measure_by_prompt",
    "measure_rewards",
    "select",
]
