"""The page of a backtest: what would have happened under each policy, and the curves beside it.

One self-contained HTML page in the style of the report of a run (`tasks/report/page.py`).
"""

from pvar.backtest_result import (
    BacktestResult,
    backtest_remarks,
    policy_story,
    total_of_policy,
)
from tasks.report.backtest_figures import backtest_figures
from tasks.report.page import page_environment
from tasks.report.text import Headline


def render_backtest(result: BacktestResult) -> str:
    """The page as text, to be written as UTF-8. The same result gives the same text."""
    policies = result.policies
    return (
        page_environment()
        .get_template("backtest.html.j2")
        .render(
            result=result,
            headline=backtest_headline(result),
            remarks=backtest_remarks(result),
            rows=[(each, total_of_policy(each), policy_story(each)) for each in policies],
            figures=backtest_figures(policies),
            agreed=sorted(
                {name for each in policies for batch in each.batches for name in batch.agreement}
            ),
            benchmarks=sorted(
                {name for each in policies for batch in each.batches for name in batch.benchmarks}
            ),
        )
    )


def backtest_headline(result: BacktestResult) -> Headline:
    """The number of promotions under each policy, in a sentence."""
    counts = ", ".join(
        f"{len(each.promoted)} of {len(each.batches)} batches under {each.name}"
        for each in result.policies
    )
    promoted = f"a model would have been promoted after {counts}"
    if any(each.error is not None for each in result.policies):
        return Headline("Ended early", "bad", f"Ended early: so far, {promoted}.")
    if not all(each.is_complete for each in result.policies):
        return Headline("Not finished", "neutral", f"Not finished: so far, {promoted}.")
    return Headline("Replayed", "good", f"Replayed: {promoted}.")
