"""The page of a backtest: policies side by side, and nothing that a reader could not trust."""

import re

from tasks.report.backtest_figures import backtest_figures
from tasks.report.backtest_page import render_backtest
from tests.unit.pvar.test_backtest_result import batch, policy, rate, result

REPLAYED = policy(
    batch(1, "promoted", 0.6, ability=0.5, benchmarks={"arena": 41.5}, agreement={"judge": 0.8}),
    batch(2, "not promoted", 0.3, why=("<script>alert(1)</script>",), against_champion=rate(0.4)),
    name="replayed",
    settings={"replay": {"share": 0.5}},
    asks_person=True,
)
PLAIN = policy(batch(1, "held"), name="plain")


def text(page: str) -> str:
    """What a reader sees, without figures."""
    shown = re.sub(r"<(style|svg).*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", shown))


def test_each_policy_has_its_story_totals_and_batches() -> None:
    page = render_backtest(result(REPLAYED, PLAIN))
    told = text(page)
    assert "after 1 of 2 batches under replayed, 0 of 1 batches under plain" in told
    assert 'replay={"share": 0.5}' in told
    assert "the retraining as it is configured" in told
    assert told.count("a person would have been asked") == 2  # in the story, and at the promotion
    assert "Batch by batch: replayed" in told
    assert "Batch by batch: plain" in told
    assert "missing" not in told


def test_untrusted_text_stays_text() -> None:
    page = render_backtest(result(REPLAYED))
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_quantity_has_a_figure_with_all_policies_that_know_it() -> None:
    other = policy(batch(1, "promoted", 0.7), name="other")
    figures = backtest_figures([REPLAYED, other, PLAIN])
    assert set(figures) == {
        "first", "champion", "ability", "agreement judge", "benchmark arena",
    }  # fmt: skip
    shown = set(re.findall(r'id="backtest-first-(replayed|other|plain)"', figures["first"]))
    assert shown == {"replayed", "other"}
    assert "replayed 0.6 at first, 0.3 at last; other 0.7 at first" in figures["first"]
    assert backtest_figures([PLAIN]) == {}


def test_the_same_result_gives_the_same_page() -> None:
    assert render_backtest(result(REPLAYED)) == render_backtest(result(REPLAYED))


def test_a_replay_that_ended_early_says_so() -> None:
    page = render_backtest(result(policy(num_looks_done=1, error="the disk is full")))
    assert "Ended early" in text(page)
    assert "the disk is full" in text(page)
