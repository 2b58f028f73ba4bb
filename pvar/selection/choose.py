"""Select prompts in a strategy's order until the budget is spent.

The result does not depend on the row order: a priority is a function of a prompt's values, its id
and the seed, and ties are ordered by id.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pvar.errors import InputError
from pvar.row_counts import RowCounts
from pvar.selection.candidates import Budget, Candidates
from pvar.selection.strategies import STRATEGIES, StrategyName
from pvar.selection.strategy import FloatArray, IdArray, StrategySettings

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Selection:
    """The selected prompts, best first, and the reasons why the others were left out."""

    strategy: StrategyName
    budget: Budget
    prompt_ids: IdArray
    """Shape (num_selected,), in the strategy's order; ties are ordered by id."""
    measure: str
    """Name of the measure."""
    values: FloatArray
    """The measure of each selected prompt, shape (num_selected,)."""
    cut_value: float | None
    """Measure of the last selected prompt; None if the order depends on more than the measure."""
    num_tied_selected: int
    """Selected prompts whose measure equals the cut value."""
    num_tied_left_out: int
    """Prompts at the cut value that were left out because of their id. If there are many, the
    measure is saturated or too coarse, and the selection is partly by id."""
    num_without_measure: int
    """Candidates without the measure."""
    row_counts: RowCounts
    """Candidates in, selected prompts out, and the others by reason."""

    def __len__(self) -> int:
        return len(self.prompt_ids)


def select(
    candidates: Candidates,
    strategy: StrategyName,
    budget: Budget,
    *,
    seed: int,
    threshold: float | None = None,
) -> Selection:
    """Select prompts by a strategy, within a budget.

    `threshold` is the minimum PVar of strategy `threshold`. Strategy `all` selects every prompt and
    ignores the budget. Raises InputError if a required measure or num_tokens is missing,
    ConfigError for a threshold outside [0, ¼].
    """
    chosen = STRATEGIES[strategy]
    if chosen.budget == "ignores":
        budget = Budget(fraction=1.0)
    values = candidates.values(chosen.measure)
    priority = chosen.rank(candidates.prompt_ids, values, StrategySettings(seed, threshold))
    selected = _within_budget(candidates, priority, budget)

    is_ranked, is_missing = ~np.isnan(priority), np.isnan(values)
    rejected = {
        "no_measure": int(np.count_nonzero(is_missing & ~is_ranked)),
        "below_threshold": int(np.count_nonzero(~is_missing & ~is_ranked)),
        "over_budget": int(np.count_nonzero(is_ranked)) - len(selected),
    }
    cut = float(values[selected[-1]]) if chosen.has_cut and len(selected) else None
    num_tied = 0 if cut is None else int(np.count_nonzero(values[is_ranked] == cut))
    num_tied_selected = 0 if cut is None else int(np.count_nonzero(values[selected] == cut))
    return Selection(
        strategy=strategy,
        budget=budget,
        prompt_ids=candidates.prompt_ids[selected],
        measure=chosen.measure.name,
        values=values[selected],
        cut_value=cut,
        num_tied_selected=num_tied_selected,
        num_tied_left_out=num_tied - num_tied_selected,
        num_without_measure=int(np.count_nonzero(is_missing)),
        row_counts=RowCounts(
            rows_in=len(candidates),
            rows_out=len(selected),
            rejected={reason: count for reason, count in rejected.items() if count},
        ),
    )


def _within_budget(candidates: Candidates, priority: FloatArray, budget: Budget) -> Rows:
    """Selected rows, best first."""
    num_eligible = int(np.count_nonzero(~np.isnan(priority)))
    if budget.tokens is not None:
        if candidates.num_tokens is None:
            raise InputError(
                "budget.tokens needs num_tokens, which these candidates do not have; "
                "add it, or set budget.fraction or budget.count"
            )
        ordered = _best_first(priority, candidates.prompt_ids, num_eligible)
        spent = np.cumsum(candidates.num_tokens[ordered])
        return ordered[: np.searchsorted(spent, budget.tokens, side="right")]
    if budget.count is not None:
        limit = budget.count
    else:
        limit = max(1, int(np.floor(len(candidates) * (budget.fraction or 0) + 0.5)))
    return _best_first(priority, candidates.prompt_ids, min(limit, num_eligible))


def _best_first(priority: FloatArray, prompt_ids: IdArray, limit: int) -> Rows:
    """Rows of the `limit` highest priorities, highest first; ties are ordered by id.

    Only the rows at or above the cut are sorted, which is cheaper for large tables.
    """
    rows = np.flatnonzero(~np.isnan(priority))
    if limit == 0:
        return rows[:0]
    cut = np.partition(priority[rows], len(rows) - limit)[len(rows) - limit]
    rows = rows[priority[rows] >= cut]
    order = np.lexsort((prompt_ids[rows], -priority[rows]))
    best: Rows = rows[order[:limit]]
    return best
