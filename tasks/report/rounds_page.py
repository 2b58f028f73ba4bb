"""The page of rounds: how the pool, the model and the gate changed from round to round.

One self-contained HTML page in the style of the report of a run (`tasks/report/page.py`). Each
round also has such a report of its own.
"""

from pvar.pool_variance import MEDIAN
from pvar.round_rules import RoundResult, RoundsResult
from tasks.report.page import page_environment
from tasks.report.rounds_figures import rounds_figures
from tasks.report.text import Headline


def render_rounds(result: RoundsResult) -> str:
    """The page as text, to be written as UTF-8. The same results give the same text."""
    rounds = result.rounds
    return (
        page_environment()
        .get_template("rounds.html.j2")
        .render(
            result=result,
            headline=rounds_headline(result),
            lead=result.waiting or (result.end.sentence if result.end else ""),
            figures=rounds_figures(rounds) if rounds else {},
            champion=next((each for each in reversed(rounds) if each.promoted), None),
            median=rounds[0].pool.quantiles[MEDIAN] if rounds and rounds[0].pool.mean else None,
            seconds=sum(each.seconds for each in rounds) if rounds else None,
            shares=[_share_of_first(each, rounds[0]) for each in rounds],
        )
    )


def rounds_headline(result: RoundsResult) -> Headline:
    """How the rounds stand, in a sentence."""
    num_promoted = sum(each.promoted for each in result.rounds)
    made = f"{num_promoted} of {len(result.rounds)} rounds promoted a model"
    if result.waiting is not None:
        return Headline("Waiting", "neutral", f"Waiting: {made} so far.")
    if result.end is None:
        return Headline("Not finished", "neutral", f"Not finished: {made} so far.")
    return Headline("Ended", "good" if num_promoted else "bad", f"Ended: {made}.")


def _share_of_first(one: RoundResult, first: RoundResult) -> float | None:
    """Mean PVar of the pool as a share of the first round's."""
    mean = one.pool.mean
    return None if mean is None or not first.pool.mean else mean / first.pool.mean
