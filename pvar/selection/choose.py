"""Take the budget from a ranking: quotas, ties by id, accounts, and the matched control.

Nothing here depends on the order of the rows: priorities are functions of a prompt's values, its
id and the seed, and equals are taken in the order of their ids.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pvar.accounts import Accounts
from pvar.errors import InputError
from pvar.selection.candidates import (
    Budget,
    Candidates,
    FloatArray,
    IdArray,
    Ranking,
    Selection,
    StrategyName,
    StrategySettings,
)
from pvar.selection.random import rank_random_among
from pvar.selection.strategies import STRATEGIES

Rows = NDArray[np.int64]


def select(
    candidates: Candidates,
    strategy: StrategyName,
    budget: Budget,
    *,
    seed: int,
    quota_per_source: Mapping[str, int] | None = None,
    threshold: float | None = None,
) -> Selection:
    """Select prompts by a strategy, within a budget.

    `quota_per_source` limits the prompts from each source it names; the best of that source are
    taken. `threshold` is the least PVar of strategy `threshold`. Strategy `all` takes everything,
    whatever the budget. Raises InputError for a measure, num_tokens or source that is needed and
    missing, ConfigError for a threshold outside [0, ¼].
    """
    ranking = STRATEGIES[strategy](candidates, StrategySettings(seed, threshold))
    if strategy == "all":
        budget = Budget(fraction=1.0)
    return _take(candidates, ranking, strategy, budget, quota_per_source)


def matched_random_control(candidates: Candidates, selection: Selection, *, seed: int) -> Selection:
    """A random selection to compare with: same pool, same size, same quotas.

    The pool is the candidates that have the selection's measure. Same size is the same number of
    prompts, or the same token budget where the selection had one. Raises InputError for an empty
    selection.
    """
    if len(selection) == 0:
        raise InputError("the selection is empty: there is no control of that size")
    same_size = selection.budget if selection.budget.tokens else Budget(count=len(selection))
    ranking = rank_random_among(candidates, selection.measure, seed)
    return _take(candidates, ranking, "random", same_size, selection.quota_per_source)


def _take(
    candidates: Candidates,
    ranking: Ranking,
    strategy: StrategyName,
    budget: Budget,
    quota_per_source: Mapping[str, int] | None,
) -> Selection:
    values: FloatArray = getattr(candidates, ranking.measure)
    ranked = ~np.isnan(ranking.priority)
    within_quota = _apply_quotas(candidates, ranking.priority, quota_per_source)
    selected = _within_budget(candidates, within_quota, budget)

    without_measure = ~np.isfinite(values)
    num_within_quota = int(np.count_nonzero(~np.isnan(within_quota)))
    rejected = {
        "no_measure": int(np.count_nonzero(without_measure & ~ranked)),
        "below_threshold": int(np.count_nonzero(~without_measure & ~ranked)),
        "over_source_quota": int(np.count_nonzero(ranked)) - num_within_quota,
        "over_budget": num_within_quota - len(selected),
    }
    cut = float(values[selected[-1]]) if ranking.has_cut and len(selected) else None
    num_tied = 0 if cut is None else int(np.count_nonzero(values[~np.isnan(within_quota)] == cut))
    num_tied_selected = 0 if cut is None else int(np.count_nonzero(values[selected] == cut))
    return Selection(
        strategy=strategy,
        budget=budget,
        quota_per_source=quota_per_source,
        prompt_ids=candidates.prompt_ids[selected],
        measure=ranking.measure,
        values=values[selected],
        cut_value=cut,
        num_tied_selected=num_tied_selected,
        num_tied_left_out=num_tied - num_tied_selected,
        num_without_measure=int(np.count_nonzero(without_measure)),
        accounts=Accounts(
            rows_in=len(candidates),
            rows_out=len(selected),
            rejected={reason: count for reason, count in rejected.items() if count},
        ),
    )


def _within_budget(candidates: Candidates, priority: FloatArray, budget: Budget) -> Rows:
    """Rows taken, best first."""
    num_eligible = int(np.count_nonzero(~np.isnan(priority)))
    if budget.tokens is not None:
        if candidates.num_tokens is None:
            raise InputError(
                "a budget in tokens needs num_tokens, which these candidates lack; "
                "add it or give a fraction or a count"
            )
        ordered = _best_first(priority, candidates.prompt_ids, num_eligible)
        spent = np.cumsum(candidates.num_tokens[ordered])
        return ordered[: np.searchsorted(spent, budget.tokens, side="right")]
    if budget.count is not None:
        limit = budget.count
    else:
        limit = max(1, int(np.floor(len(candidates) * (budget.fraction or 0) + 0.5)))
    return _best_first(priority, candidates.prompt_ids, min(limit, num_eligible))


def _apply_quotas(
    candidates: Candidates, priority: FloatArray, quota_per_source: Mapping[str, int] | None
) -> FloatArray:
    """The priorities, NaN for what its source's quota leaves no room for."""
    if quota_per_source is None:
        return priority
    if candidates.source is None:
        raise InputError(
            "quotas per source need the column source, which these candidates lack; "
            "add it or leave the quotas out"
        )
    unknown = sorted(set(quota_per_source) - set(np.unique(candidates.source).tolist()))
    if unknown:
        raise InputError(
            f"quotas name the sources {unknown}, which no candidate has; "
            f"there are {np.unique(candidates.source).tolist()}"
        )
    limited = priority.copy()
    for source, quota in quota_per_source.items():
        rows = np.flatnonzero((candidates.source == source) & ~np.isnan(priority))
        order = _best_first(priority[rows], candidates.prompt_ids[rows], len(rows))
        limited[rows[order[quota:]]] = np.nan
    return limited


def _best_first(priority: FloatArray, prompt_ids: IdArray, limit: int) -> Rows:
    """Rows of the `limit` highest priorities, highest first, equals in the order of their ids.

    Only the rows at the cut and above are sorted: the ids of a large table are not.
    """
    rows = np.flatnonzero(~np.isnan(priority))
    if limit == 0:
        return rows[:0]
    cut = np.partition(priority[rows], len(rows) - limit)[len(rows) - limit]
    rows = rows[priority[rows] >= cut]
    order = np.lexsort((prompt_ids[rows], -priority[rows]))
    best: Rows = rows[order[:limit]]
    return best
