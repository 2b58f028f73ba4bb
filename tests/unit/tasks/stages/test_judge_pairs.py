"""Judging pairs: orders, coverage, budgets, resuming, and what a kill costs.

That a retrained model is judged anew, and that failures are asked again and lower the coverage, is
held here end to end: a real HTTP server as judge, a real store as cache.
"""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from infra.judges.fake_judge import FakePairJudge
from infra.judges.openai_judge import OpenAIJudge, Prices
from infra.judges.questions import AlpacaEval, ArenaHard
from infra.judges.retry_policy import RetryPolicy
from pvar.errors import BudgetError, JudgeError
from pvar.judging import Identity, JudgeBudget
from pvar.judging_result import JudgingResult
from pvar.ports import Judge, Store
from pvar.records import Comparison, Message, Verdict
from tasks.stages.judge_pairs import Orders, judge_pairs
from tasks.stages.verdict_cache import VerdictCache
from tests.services.chat_server import Asked, ChatServer, fails, says, says_token, serving
from tests.services.loopback_http import Sent
from tests.services.processes import NEVER_SECONDS, wait_until

NO_LIMIT = JudgeBudget()


@dataclass
class RuleJudge:
    """A judge by a rule; it remembers what it was shown."""

    rule: Callable[[Comparison], float | None]
    asked: list[Comparison] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        return {"kind": "rule"}

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        self.asked += comparisons
        return [self._verdict(comparison) for comparison in comparisons]

    def _verdict(self, comparison: Comparison) -> Verdict:
        preference = self.rule(comparison)
        reason = "no_verdict" if preference is None else None
        return Verdict(comparison.prompt_id, preference, reason)


def pairs(num: int, *, challenger: str = "challenger") -> list[Comparison]:
    return [
        Comparison(f"p{i}", (Message("user", f"Question {i}?"),), f"opponent {i}", challenger)
        for i in range(num)
    ]


def run(
    judge: Judge,
    rows: Sequence[Comparison],
    cache: VerdictCache | None = None,
    budget: JudgeBudget = NO_LIMIT,
    *,
    orders: Orders = "both",
    seed: int = 0,
) -> JudgingResult:
    return judge_pairs(
        judge, rows, cache=cache, budget=budget, min_coverage=1.0, orders=orders, seed=seed
    )


def prefers_challenger(comparison: Comparison) -> float:
    return 0.9 if comparison.second.startswith("challenger") else 0.1


# Orders


@pytest.mark.parametrize("orders", ["both", "seeded"])
def test_the_preference_is_the_challengers_in_whatever_order_it_was_shown(orders: Orders) -> None:
    judge = RuleJudge(prefers_challenger)

    result = run(judge, pairs(40), orders=orders)

    assert [v.prompt_id for v in result.verdicts] == [f"p{i}" for i in range(40)]
    assert all(v.preference == pytest.approx(0.9) for v in result.verdicts)
    shown_first = {c.first.startswith("challenger") for c in judge.asked}
    assert shown_first == {True, False}
    assert len(judge.asked) == (80 if orders == "both" else 40)


def test_both_orders_cancel_a_judges_love_for_the_second_place_and_show_it() -> None:
    # Second place alone: 0.8 and 1 − 0.8. Their mean is a tie, and the two never agree.
    result = run(RuleJudge(lambda _: 0.8), pairs(10))

    assert [v.preference for v in result.verdicts] == [pytest.approx(0.5)] * 10
    assert result.position_consistency == 0.0
    assert run(RuleJudge(prefers_challenger), pairs(10)).position_consistency == 1.0


def test_a_seeded_order_is_fair_on_average_repeatable_and_another_for_another_seed() -> None:
    second_place = RuleJudge(lambda _: 1.0)

    def wins(seed: int) -> list[float | None]:
        result = run(second_place, pairs(400), orders="seeded", seed=seed)
        return [v.preference for v in result.verdicts]

    drawn = wins(0)
    # Binomial(400, ½): standard deviation 10; 4 of them are 40.
    assert abs(drawn.count(1.0) - 200) < 40
    assert wins(0) == drawn
    assert wins(1) != drawn


def test_the_order_of_one_pair_does_not_depend_on_the_others() -> None:
    judge = RuleJudge(lambda _: 1.0)
    whole = run(judge, pairs(20), orders="seeded").verdicts

    assert run(judge, pairs(20)[::-1], orders="seeded").verdicts == whole[::-1]


def test_equal_comparisons_are_asked_once_and_answered_everywhere() -> None:
    judge = RuleJudge(prefers_challenger)

    result = run(judge, pairs(2) * 3)

    assert len(judge.asked) == 4  # two pairs in two orders
    assert result.num_judged == 6


def test_nothing_to_judge_is_a_result_without_coverage() -> None:
    result = run(RuleJudge(prefers_challenger), [])

    assert (result.num_calls, result.coverage, result.is_final) == (0, 0.0, False)


# Coverage


def test_a_pair_is_judged_only_if_all_its_showings_are() -> None:
    # p3 has no verdict in one order only.
    judge = RuleJudge(
        lambda c: None if c.prompt_id == "p3" and c.first == "challenger" else prefers_challenger(c)
    )

    result = run(judge, pairs(5))

    assert result.verdicts[3] == Verdict("p3", None, "no_verdict")
    assert (result.num_judged, result.coverage) == (4, 0.8)
    assert result.missing == {"no_verdict": 1}
    with pytest.raises(JudgeError, match=r"4 of 5 pairs .*no_verdict"):
        result.final_verdicts()


def test_failures_are_not_cached_and_are_asked_again_by_the_next_run(file_store: Store) -> None:
    cache = VerdictCache(file_store)
    broken = True

    def behaviour(asked: Asked) -> Sent:
        bad_luck = broken and any(f"Question {n}?" in asked.prompt for n in (1, 4))
        return fails(500) if bad_luck else says("[[B>A]]")

    with serving(behaviour) as server:
        first = run(llm_judge(server), pairs(6), cache)
        assert (first.num_judged, first.missing, first.is_final) == (4, {"http_500": 4}, False)
        assert len(list(file_store.list("verdicts/"))) == 8

        broken = False
        num_before = len(server.asked)
        second = run(llm_judge(server), pairs(6), cache)

    assert second.is_final
    assert second.num_cached == 8
    # Exactly the four showings that had failed.
    assert len(server.asked) - num_before == second.num_calls == 4


# Cache


def test_a_rerun_costs_nothing_and_says_the_same(file_store: Store) -> None:
    cache = VerdictCache(file_store)
    first = run(FakePairJudge(), pairs(30), cache)
    again = run(FakePairJudge(), pairs(30), cache)

    assert again.verdicts == first.verdicts
    assert (first.num_calls, first.num_cached) == (60, 0)
    assert (again.num_calls, again.num_cached) == (0, 60)


def test_a_retrained_models_answers_are_judged_anew_and_unchanged_ones_are_not(
    file_store: Store,
) -> None:
    cache = VerdictCache(file_store)
    run(RuleJudge(lambda _: 0.25), pairs(4), cache)
    retrained = [*pairs(3), *pairs(4, challenger="challenger, retrained")[3:]]
    judge = RuleJudge(prefers_challenger)

    result = run(judge, retrained, cache)

    assert {c.prompt_id for c in judge.asked} == {"p3"}
    assert result.verdicts[3].preference == pytest.approx(0.9)


def test_evidence_comes_from_the_cache_too(file_store: Store) -> None:
    cache = VerdictCache(file_store)
    with serving(lambda _: says("Because. [[A>>B]]")) as server:
        first = run(llm_judge(server), pairs(1), cache)
        again = run(llm_judge(server), pairs(1), cache)

    assert first.pairs == again.pairs
    [game_1, game_2] = first.pairs[0].showings
    assert (game_1.is_swapped, game_1.preference, game_1.evidence) == (
        False,
        0.0,
        "Because. [[A>>B]]",
    )
    assert (game_2.is_swapped, game_2.preference) == (True, 1.0)


# Budget


def llm_judge(
    server: ChatServer, *, prices: Prices | None = None, max_in_flight: int = 2
) -> OpenAIJudge:
    return OpenAIJudge(
        "judge-model",
        ArenaHard("v2.0", max_tokens=10, temperature=0.0),
        server.access(),
        max_in_flight,
        RetryPolicy(timeout_seconds=NEVER_SECONDS, max_attempts=1, back_off_seconds=0.001),
        prices,
    )


def test_a_budget_in_calls_is_kept_to_the_call_and_resumed_without_repeating_one(
    file_store: Store,
) -> None:
    cache = VerdictCache(file_store)
    with serving(lambda _: says("[[B>A]]")) as server:
        for run_number, num_judged in enumerate([3, 7, 10, 10], start=1):
            result = run(llm_judge(server), pairs(10), cache, JudgeBudget(max_calls=7))
            # 7 calls are 3 pairs and a half, 14 are 7 pairs; 20 are all.
            assert result.num_judged == num_judged
            assert len(server.asked) == min(7 * run_number, 20)
            if not result.is_final:
                assert result.missing == {"budget_spent": 20 - 7 * run_number}
                with pytest.raises(BudgetError, match=f"{num_judged} of 10 pairs"):
                    result.final_verdicts()

    assert result.is_final
    prompts = [asked.prompt for asked in server.asked]
    assert len(set(prompts)) == len(prompts)


def test_a_budget_in_money_begins_no_call_once_it_is_spent(file_store: Store) -> None:
    # 100 prompt tokens at 10 000 dollars a million are a dollar a call.
    with serving(lambda _: says("[[B>A]]", usage=(100, 0))) as server:
        judge = llm_judge(server, prices=Prices(10_000, 0), max_in_flight=2)
        result = run(judge, pairs(20), VerdictCache(file_store), JudgeBudget(max_usd=5.0))

    # The fifth dollar is spent by the fifth call; one other was in flight then.
    assert 5 <= len(server.asked) <= 6
    assert result.usd == pytest.approx(float(len(server.asked)))
    assert result.missing == {"budget_spent": 40 - len(server.asked)}


def test_cached_verdicts_are_free_even_when_the_budget_is_spent(file_store: Store) -> None:
    cache = VerdictCache(file_store)
    judged_before = pairs(10)[7:]
    run(FakePairJudge(), judged_before, cache)

    result = run(FakePairJudge(), pairs(10), cache, JudgeBudget(max_calls=2))

    # One pair by the two calls, three from the cache though they come last.
    assert (result.num_calls, result.num_judged) == (2, 4)


def test_a_money_budget_for_a_judge_of_unknown_price_is_refused_at_the_first_call(
    file_store: Store,
) -> None:
    cache = VerdictCache(file_store)
    with (
        serving(lambda _: says("[[B>A]]")) as server,
        pytest.raises(JudgeError, match="the cost of a call is not known"),
    ):
        run(llm_judge(server), pairs(9), cache, JudgeBudget(max_usd=5.0))

    assert len(server.asked) <= 2
    assert len(list(file_store.list("verdicts/"))) >= 1  # it was paid for


def test_a_judge_that_cannot_be_asked_any_more_leaves_what_it_said(file_store: Store) -> None:
    cache = VerdictCache(file_store)
    with serving(lambda a: fails(401) if "n 5?" in a.prompt else says("[[B>A]]")) as server:
        with pytest.raises(JudgeError, match="PVAR_JUDGE_API_KEY"):
            run(llm_judge(server), pairs(9), cache)
        num_answered = sum("n 5?" not in asked.prompt for asked in server.asked)

    assert len(list(file_store.list("verdicts/"))) == num_answered >= 10


def test_the_tokens_of_this_run_are_counted_and_an_unknown_count_is_not_zero(
    file_store: Store,
) -> None:
    cache = VerdictCache(file_store)
    with serving(lambda _: says("[[B>A]]", usage=(100, 7))) as server:
        first = run(llm_judge(server), pairs(3), cache)
        again = run(llm_judge(server), pairs(3), cache)
    with serving(lambda _: says("[[B>A]]", usage=None)) as server:
        unknown = run(llm_judge(server), pairs(3))

    assert (first.prompt_tokens, first.completion_tokens) == (600, 42)
    assert (again.prompt_tokens, again.completion_tokens) == (0, 0)
    assert (unknown.prompt_tokens, unknown.completion_tokens) == (None, None)
    computed = run(FakePairJudge(), pairs(3))
    assert (computed.prompt_tokens, computed.completion_tokens) == (0, 0)


def test_the_log_estimates_before_what_it_counts_after(
    file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tasks.stages.judge_pairs")
    cache = VerdictCache(file_store)
    with serving(lambda _: says("[[B>A]]", usage=(100, 7))) as server:
        run(llm_judge(server, prices=Prices(2.0, 8.0)), pairs(2), cache)
        caplog.clear()
        result = run(llm_judge(server), pairs(9), cache, JudgeBudget(max_calls=5))

    before, after = (
        record.getMessage()
        for record in caplog.records
        if record.name == "tasks.stages.judge_pairs"
    )
    assert before.startswith("judging: 5 calls to send, 4 verdicts from the cache; about ")
    assert "price unknown" in before
    assert "500 prompt and 35 completion tokens" in after
    assert result.num_calls == 5


def test_the_estimate_is_in_dollars_where_the_prices_are_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="tasks.stages.judge_pairs")
    with serving(lambda _: says("[[B>A]]")) as server:
        judge = llm_judge(server, prices=Prices(0, 1e6))
        run(judge, pairs(2))

    # Prompts are free; four replies of at most ten tokens cost a dollar a token.
    assert "about 0.00 USD for the prompts, 40.00 USD with the longest" in caplog.text


# What judged, and how


def served_by(model: str, fingerprint: str) -> Sent:
    body = json.loads(says("[[B>A]]").body)
    return Sent(json.dumps(body | {"model": model, "system_fingerprint": fingerprint}).encode())


def test_the_model_that_answered_is_recorded_and_kept(file_store: Store) -> None:
    cache = VerdictCache(file_store)
    with serving(lambda _: served_by("m-1", "fp_a")) as server:
        first = run(llm_judge(server), pairs(2), cache)
    with serving(lambda _: served_by("m-2", "fp_b")) as server:
        both = run(llm_judge(server), pairs(3), cache)

    assert first.served == {"m-1 (fp_a)": 4}
    assert both.served == {"m-1 (fp_a)": 4, "m-2 (fp_b)": 2}
    assert run(FakePairJudge(), pairs(2)).served == {}


def test_verdicts_of_two_forms_are_mixed_and_the_log_warns_once(
    file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def token_judge(server: ChatServer) -> OpenAIJudge:
        return replace(llm_judge(server), questions=AlpacaEval())

    cache = VerdictCache(file_store)
    with serving(lambda _: says_token({"m": -1.0, "M": -0.5})) as server:
        tokens = run(token_judge(server), pairs(2), cache)
    assert tokens.judge_form == "tokens"

    with serving(lambda _: says("M")) as server:
        mixed = run(token_judge(server), pairs(4), cache)
        assert (mixed.num_cached, mixed.judge_form) == (4, "mixed")
        assert run(token_judge(server), pairs(4)[2:], cache).judge_form == "text"

    # One warning for each of the two runs, the second of which only read the cache.
    assert len(server.asked) == 4
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ["so its text decides" in message for message in warnings] == [True, True]


def test_comparisons_that_are_refused_again_do_not_stop_a_judge_with_verdicts(
    file_store: Store,
) -> None:
    cache = VerdictCache(file_store)

    def behaviour(asked: Asked) -> Sent:
        dislikes = any(f"Question {n}?" in asked.prompt for n in range(4))
        return fails(400, message="I do not like it") if dislikes else says("[[B>A]]")

    with serving(behaviour) as server:
        run(llm_judge(server), pairs(20)[4:], cache)
        result = run(llm_judge(server), pairs(24), cache)

    assert result.missing == {"http_400": 8}
    assert result.num_judged == 20


class _PairedWrites:
    """A store that finishes a write only when another one has begun."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._two = threading.Barrier(2)

    def create(self, key: str, data: bytes) -> bool:
        self._two.wait(NEVER_SECONDS)
        return self._store.create(key, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_verdict_that_is_being_stored_does_not_delay_the_next(file_store: Store) -> None:
    # One after the other, the writes would wait for ever.
    cache = VerdictCache(cast("Store", _PairedWrites(file_store)))
    with serving(lambda _: says("[[B>A]]")) as server:
        result = run(llm_judge(server), pairs(4), cache)

    assert result.is_final
    assert len(list(file_store.list("verdicts/"))) == 8


# Kill

JUDGING_PROCESS = """
import sys
from infra.judges.access import JudgeAccess
from infra.store import open_store
from tests.unit.tasks.stages import test_judge_pairs as this
from tests.services.chat_server import ChatServer

_, base_url, store = sys.argv
this.run(
    this.llm_judge(ChatServer(base_url), max_in_flight=3),
    this.pairs(30),
    this.VerdictCache(open_store(store)),
)
"""


def test_a_kill_costs_at_most_the_calls_in_flight(file_store: Store) -> None:
    killed = threading.Event()

    def behaviour(_: Asked) -> Sent:
        if len(server.asked) > 20:
            killed.wait(NEVER_SECONDS)
        return says("[[B>A]]")

    with serving(behaviour) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", JUDGING_PROCESS, server.base_url, file_store.uri],
            cwd=Path(__file__).parents[3],
        )
        try:
            wait_until(lambda: len(server.asked) > 20 or process.poll() is not None, "21 calls")
        finally:
            process.kill()
            process.wait()
            killed.set()
        num_asked = len(server.asked)
        num_kept = len(list(file_store.list("verdicts/")))

        result = run(llm_judge(server), pairs(30), VerdictCache(file_store))

    assert 21 <= num_asked <= 23  # 3 in flight, of 60
    assert num_asked - num_kept <= 3
    assert result.is_final
    assert result.num_cached == num_kept
    assert len(server.asked) == num_asked + 60 - num_kept
