"""Selection of prompts: from candidates and a budget to the selected prompt ids.

    measures = measure_rewards(RewardMatrix(rewards, scales))
    chosen = select(Candidates(prompt_ids, measures), "top", Budget(fraction=0.1), seed=0)

Each file has one strategy; `strategies.py` lists them. A strategy defines a measure and an order of
the prompts. Budget, ties and row counts are the same for all (`choose.py`).
"""

from pvar.selection.candidates import Budget, Candidates
from pvar.selection.choose import Selection, select
from pvar.selection.measure import measure_by_prompt, measure_gaps, measure_rewards
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
    "measure_gaps",
    "measure_rewards",
    "select",
]
