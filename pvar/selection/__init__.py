"""Selection of prompts: candidates and a budget in, the chosen prompt ids out.

    chosen = select(Candidates(prompt_ids, pvar), "top", Budget(fraction=0.1), seed=0)
    control = matched_random_control(candidates, chosen, seed=1)

One strategy per file, listed in `strategies.py`. A strategy says only which prompts come first;
budget, quotas, ties and accounts are the same for all (`select.py`).
"""

from pvar.selection.candidates import (
    Budget,
    Candidates,
    MatchedStrategyName,
    Measure,
    Selection,
    StrategyName,
)
from pvar.selection.choose import matched_random_control, select
from pvar.selection.strategies import SEEDED, STRATEGIES

__all__ = [
    "SEEDED",
    "STRATEGIES",
    "Budget",
    "Candidates",
    "MatchedStrategyName",
    "Measure",
    "Selection",
    "StrategyName",
    "matched_random_control",
    "select",
]
