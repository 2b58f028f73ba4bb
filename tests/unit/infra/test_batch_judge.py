"""A judge through a server's batch API, against a real HTTP server with files and batches.

P(M) = 3/4 is log-probabilities ln ¼ and ln ¾ of "m" and "M". Each pair of `pairs` is judged in both
orders, so n pairs are 2n requests.
"""

import json
import logging
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from infra.judges.batch_api import BatchState
from infra.judges.batch_judge import BatchJudge
from infra.judges.batch_records import BatchRecords
from infra.judges.batch_requests import BatchLimits, batch_request, read_reply, split_requests
from infra.judges.openai_judge import OpenAIJudge, Prices
from infra.judges.questions import AlpacaEval, ArenaHard, Questions, Request
from infra.judges.retry_policy import RetryPolicy
from pvar.errors import BudgetError, JudgeError
from pvar.judging import JudgeBudget, MeteredJudge
from pvar.judging_result import JudgingResult
from pvar.ports import Store
from pvar.records import Comparison, Message
from tasks.stages.judge_pairs import judge_pairs
from tasks.stages.verdict_cache import VerdictCache
from tests.services.batch_server import BatchServer, End, serving_batches
from tests.services.chat_server import Asked, fails, says, says_token, serving
from tests.services.loopback_http import Sent
from tests.services.processes import NEVER_SECONDS, wait_until

ARENA_V01 = ArenaHard("v0.1", max_tokens=100, temperature=0.0)
ARENA_V2 = ArenaHard("v2.0", max_tokens=100, temperature=0.0)
M_WINS_3_TO_1 = says_token({"m": math.log(1 / 4), "M": math.log(3 / 4)})
RETRIES = RetryPolicy(NEVER_SECONDS, max_attempts=3, back_off_seconds=0.001)
KEY = "sk-planted-8f1c"
SAID = f"no {KEY} here: challenger"


def pairs(num: int) -> list[Comparison]:
    return [
        Comparison(f"p{i}", (Message("user", f"Question {i}?"),), "opponent", "challenger")
        for i in range(num)
    ]


def judge_at(
    server: BatchServer,
    store: Store,
    questions: Questions = ARENA_V2,
    *,
    prices: Prices | None = None,
    max_usd: float | None = None,
    limits: BatchLimits | None = None,
) -> BatchJudge:
    return BatchJudge(
        "judge-model",
        questions,
        server.access(KEY),
        RETRIES,
        store,
        prices,
        max_usd,
        first_pause_seconds=0.001,
        limits=limits or BatchLimits(),
    )


def run(
    judge: BatchJudge, rows: Sequence[Comparison], *, max_calls: int | None = None
) -> JudgingResult:
    return judge_pairs(
        judge,
        rows,
        cache=VerdictCache(judge.store),
        budget=JudgeBudget(max_calls, judge.max_usd),
        min_coverage=1.0,
    )


def prefers_challenger(asked: Asked) -> Sent:
    """A label, as Arena-Hard shows the first answer as A."""
    is_first = asked.prompt.index("challenger") < asked.prompt.index("opponent")
    return says("[[A>B]]" if is_first else "[[B>A]]")


def about(number: int, asked: Asked) -> bool:
    return f"Question {number}?" in str(asked.body["messages"])


def records(store: Store) -> list[str]:
    return [info.key for info in store.list("batches/")]


# What is asked, and how it is read


def test_every_comparison_is_one_request_of_one_batch_and_gets_its_own_verdict(
    file_store: Store,
) -> None:
    def prefers_odd(asked: Asked) -> Sent:
        wanted = prefers_challenger(asked)
        is_odd = any(about(number, asked) for number in (1, 3))
        return wanted if is_odd else says("[[A=B]]")

    with serving_batches(prefers_odd) as server:
        result = run(judge_at(server, file_store), pairs(4))

    # The server writes its replies in reverse order; ties are ½.
    assert [v.preference for v in result.final_verdicts()] == [0.5, 1.0, 0.5, 1.0]
    assert [len(batch.requests) for batch in server.batches] == [8]
    assert result.num_calls == 8
    assert records(file_store) == []


def test_log_probabilities_are_read_from_a_batch_too(file_store: Store) -> None:
    with serving_batches(lambda _: M_WINS_3_TO_1) as server:
        [verdict] = judge_at(server, file_store, AlpacaEval()).judge(pairs(1))

    assert verdict.preference == pytest.approx(0.75, abs=1e-12)


@pytest.mark.parametrize("questions", [AlpacaEval(), ARENA_V01])
def test_a_request_of_a_batch_is_the_one_that_a_live_judge_sends(
    file_store: Store, questions: Questions
) -> None:
    reply = M_WINS_3_TO_1 if isinstance(questions, AlpacaEval) else says("[[A=B]]")
    with serving(lambda _: reply) as live:
        judge = OpenAIJudge("judge-model", questions, live.access(), 1, RETRIES)
        live_verdicts = judge.judge(pairs(1))
    with serving_batches(lambda _: reply) as server:
        batched = judge_at(server, file_store, questions)
        verdicts = batched.judge(pairs(1))

    [request] = server.batches[0].requests
    assert request["body"] == live.asked[0].body
    assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
    assert verdicts == live_verdicts
    assert batched.identity == judge.identity
    assert isinstance(batched, MeteredJudge)


def test_verdicts_of_a_live_judge_are_not_submitted(file_store: Store) -> None:
    with serving(prefers_challenger) as live:
        judge = OpenAIJudge("judge-model", ARENA_V2, live.access(), 1, RETRIES)
        judge_pairs(
            judge,
            pairs(2),
            cache=VerdictCache(file_store),
            budget=JudgeBudget(),
            min_coverage=1.0,
        )
    with serving_batches(prefers_challenger) as server:
        result = run(judge_at(server, file_store), pairs(3))

    assert result.is_final
    assert result.num_cached == 4
    assert [len(batch.requests) for batch in server.batches] == [2]


def test_nothing_is_submitted_for_nothing(file_store: Store) -> None:
    with serving_batches(prefers_challenger) as server:
        judge = judge_at(server, file_store)
        run(judge, pairs(2))
        again = run(judge, pairs(2))
        assert judge.judge([]) == []

    assert again.num_cached == 4
    assert len(server.batches) == 1


def test_a_v01_judge_that_forgot_its_label_is_asked_for_it_in_a_second_batch(
    file_store: Store,
) -> None:
    def forgets(asked: Asked) -> Sent:
        if len(asked.body["messages"]) > 2:
            return says("So [[B>A]].", usage=(20, 2))
        return says("Hard." if about(1, asked) else "[[A>B]]", usage=(10, 1))

    with serving_batches(forgets) as server:
        judge = judge_at(server, file_store, ARENA_V01, prices=Prices(1e6, 1e6))
        answers = {each.verdict.prompt_id: each for each in judge.judge_each(pairs(3))}

    assert [len(batch.requests) for batch in server.batches] == [3, 1]
    assert answers["p0"].verdict.preference == 0.0
    assert answers["p1"].verdict.preference == 1.0
    assert answers["p1"].evidence == "Hard.\nSo [[B>A]]."
    # A dollar a token: 10 + 1, and 20 + 2 more for the second question.
    assert (answers["p0"].usd, answers["p1"].usd) == (pytest.approx(11), pytest.approx(33))
    assert records(file_store) == []


# Splitting


@pytest.mark.parametrize(
    ("limits", "sizes"),
    [
        (BatchLimits(max_requests=4), [4, 4, 2]),
        (BatchLimits(max_requests=10), [10]),
        (BatchLimits(max_bytes=1), [1] * 10),
    ],
)
def test_more_requests_than_a_batch_may_hold_are_several_batches(
    file_store: Store, limits: BatchLimits, sizes: list[int]
) -> None:
    with serving_batches(prefers_challenger) as server:
        result = run(judge_at(server, file_store, limits=limits), pairs(5))

    assert [len(batch.requests) for batch in server.batches] == sizes
    assert result.is_final
    assert {v.preference for v in result.verdicts} == {1.0}
    assert records(file_store) == []


def test_a_batch_holds_no_more_bytes_than_it_may() -> None:
    lines = [batch_request("judge-model", Request(pairs(9)[i].messages, 10, 0.0)) for i in range(7)]
    num_bytes = len(lines[0].line)  # all are as long: they differ in one digit, and in the id

    batches = list(split_requests(lines, BatchLimits(max_bytes=3 * num_bytes)))

    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [line for batch in batches for line in batch] == lines
    almost = list(split_requests(lines, BatchLimits(max_bytes=3 * num_bytes - 1)))
    assert [len(batch) for batch in almost] == [2, 2, 2, 1]


# Trouble


def test_failed_requests_are_missing_with_their_reason_and_only_they_are_submitted_again(
    file_store: Store,
) -> None:
    is_broken = True

    def behaviour(asked: Asked) -> Sent:
        for number, status in ((0, 400), (2, 429), (4, 500)):
            if is_broken and about(number, asked):
                return fails(status, code=KEY)
        return prefers_challenger(asked)

    with serving_batches(behaviour) as server:
        judge = judge_at(server, file_store)
        first = run(judge, pairs(6))
        assert first.num_judged == 3
        assert first.missing == {"http_400": 2, "rate_limited": 2, "http_500": 2}
        assert records(file_store) == []

        is_broken = False
        second = run(judge, pairs(6))

    assert second.is_final
    assert [len(batch.requests) for batch in server.batches] == [12, 6]


def test_the_servers_words_about_failed_requests_are_logged_once_without_secrets_and_texts(
    file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(asked: Asked) -> Sent:
        return fails(400, message=f"{KEY} may not ask on a Sunday: {asked.prompt}")

    with serving_batches(refuses) as server:
        result = run(judge_at(server, file_store), pairs(3))

    assert result.missing == {"http_400": 6}
    [said] = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert "(http_400)" in said
    assert "may not ask on a Sunday" in said
    assert KEY not in caplog.text
    assert "challenger" not in said
    with pytest.raises(JudgeError, match="read in the log why"):
        result.final_verdicts()


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("temperature is not supported", r"400: temperature is .*`temperature` \(now 0\.0\)"),
        ("Unrecognized argument: max_completion_tokens", "max_completion_tokens.*`max_tokens`"),
    ],
)
def test_a_parameter_that_every_request_is_refused_for_is_named_and_nothing_is_lost(
    file_store: Store, message: str, advice: str
) -> None:
    with serving_batches(lambda _: fails(400, message=f"{message} {KEY}")) as server:
        with pytest.raises(JudgeError, match=rf"{advice}.*runtime\.judge_mode=live") as refused:
            run(judge_at(server, file_store), pairs(3))
        assert len(server.batches) == 1
    assert "run again" not in str(refused.value)
    assert KEY not in str(refused.value)
    assert records(file_store) == []


def test_one_verdict_shows_that_a_parameter_is_not_refused_always(file_store: Store) -> None:
    def behaviour(asked: Asked) -> Sent:
        is_fine = about(0, asked)
        return prefers_challenger(asked) if is_fine else fails(400, message="bad temperature")

    with serving_batches(behaviour) as server:
        result = run(judge_at(server, file_store), pairs(3))

    assert (result.num_judged, result.missing) == (1, {"http_400": 4})


def test_of_a_reply_only_what_is_needed_must_be_there() -> None:
    """Other servers leave out the status, or word errors as texts or with numbers."""
    body = json.loads(says("[[A=B]]").body)
    parts = [{"type": "thinking", "thinking": "[[A>>B]]"}, {"type": "text", "text": "[[B>A]]"}]
    for line, wanted in (
        ({"response": {"body": body}, "error": "none"}, ("[[A=B]]", None)),
        ({"response": {"status_code": 200, "body": body}, "error": {"code": 0}}, ("[[A=B]]", None)),
        (
            {"response": {"body": {"choices": [{"message": {"content": parts}}], "usage": {}}}},
            ("[[B>A]]", None),
        ),
        ({"response": {"body": {"choices": [None, *body["choices"], 7]}}}, ("[[A=B]]", None)),
        ({"response": {"body": {"choices": [None]}}}, (None, "unreadable_reply")),
        ({"response": None, "error": {"code": 400, "message": ["no"]}}, (None, "request_failed")),
        ({"response": "none", "error": "too late"}, (None, "request_failed")),
    ):
        reply = read_reply(json.dumps({"custom_id": "c", **line}).encode())
        assert reply is not None
        text = None if reply.completion is None else reply.completion.reply.text
        assert (reply.custom_id, text, reply.reason) == ("c", *wanted)


@pytest.mark.parametrize(
    "parts",
    [
        {"request_counts": {"total": None}, "errors": "none"},
        {"request_counts": 3, "errors": {"data": [{"code": 5, "message": None}]}},
        {"request_counts": None, "errors": [], "output_file_id": None},
    ],
)
def test_of_a_batch_only_its_id_and_status_must_be_there(parts: dict[str, Any]) -> None:
    state = BatchState.model_validate_json(json.dumps({"id": "b", "status": "failed", **parts}))
    assert (state.is_over, state.reason, state.message) == (True, "batch_failed", "")


def test_what_the_server_says_that_it_is_and_its_tokens_are_recorded(file_store: Store) -> None:
    body = json.loads(says("[[A=B]]", usage=(7, 2)).body)
    named = Sent(json.dumps({**body, "model": "m-2025", "system_fingerprint": "fp_1"}).encode())
    with serving_batches(lambda _: named) as server:
        result = run(judge_at(server, file_store), pairs(2))

    assert result.served == {"m-2025 (fp_1)": 4}
    assert (result.prompt_tokens, result.completion_tokens) == (28, 8)


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_an_early_end_keeps_what_was_answered_and_the_next_run_submits_the_rest(
    file_store: Store, status: str
) -> None:
    with serving_batches(prefers_challenger, ends=[End(status, num_answered=7), End()]) as server:
        judge = judge_at(server, file_store)
        first = run(judge, pairs(5))
        # 7 requests are three pairs and a half.
        assert first.num_judged == 3
        assert first.missing == {f"batch_{status}": 3}
        with pytest.raises(JudgeError, match=f"batch_{status}.*run again to judge"):
            first.final_verdicts()
        second = run(judge, pairs(5))

    assert second.is_final
    assert (second.num_cached, second.num_calls) == (7, 3)
    assert [len(batch.requests) for batch in server.batches] == [10, 3]
    assert records(file_store) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("token_limit_exceeded", "batch_failed: token_limit_exceeded"),
        (KEY, "batch_failed"),  # what is no word may be a secret
        ("", "batch_failed"),
    ],
)
def test_a_failed_batch_is_missing_verdicts_and_the_same_requests_may_be_submitted_again(
    file_store: Store, code: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    ends = [End("failed", code=code or "0", message=f"too many for {KEY}"), End()]
    with serving_batches(prefers_challenger, ends=ends) as server:
        judge = judge_at(server, file_store)
        first = run(judge, pairs(2))
        assert first.missing == {reason: 4}
        is_passing = "token_limit" in reason
        with pytest.raises(JudgeError, match="run again" if is_passing else "read in the log why"):
            first.final_verdicts()
        assert "batch failed: too many for […]" in caplog.text
        assert run(judge, pairs(2)).is_final

    assert [len(batch.requests) for batch in server.batches] == [4, 4]


def test_an_unreadable_reply_and_one_without_a_label_are_missing(file_store: Store) -> None:
    def behaviour(asked: Asked) -> Sent:
        if about(0, asked):
            return Sent(b'{"choices": []}')
        return says("Hm.") if about(1, asked) else says("First", finish_reason="length")

    with serving_batches(behaviour) as server:
        verdicts = judge_at(server, file_store).judge(pairs(3))

    assert [v.reason for v in verdicts] == ["unreadable_reply", "no_verdict", "truncated"]


def test_a_second_question_that_fails_is_missing_and_both_are_asked_again(
    file_store: Store,
) -> None:
    is_broken = True

    def behaviour(asked: Asked) -> Sent:
        if len(asked.body["messages"]) > 2:
            return fails(500) if is_broken else says("[[B>A]]")
        return says("Hard.")

    with serving_batches(behaviour) as server:
        judge = judge_at(server, file_store, ARENA_V01)
        assert judge.judge(pairs(1)) == [("p0", None, "http_500")]
        assert records(file_store) == []
        is_broken = False
        assert judge.judge(pairs(1)) == [("p0", 1.0, None)]

    assert [len(batch.requests) for batch in server.batches] == [1, 1, 1, 1]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_batches_is_refused_with_the_name_of_the_setting(
    file_store: Store, path: str, status: int
) -> None:
    with (
        serving_batches(
            prefers_challenger, refuse=lambda _, asked: fails(status) if asked == path else None
        ) as server,
        pytest.raises(JudgeError, match=r"runtime\.judge_mode=live"),
    ):
        run(judge_at(server, file_store), pairs(1))

    assert records(file_store) == []


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (fails(401, message=SAID), r"\(401: no \[…\] here: \[…\]\); .*PVAR_JUDGE_API_KEY"),
        (
            fails(429, message=SAID, code="insufficient_quota"),
            r"no credit left \(429: no \[…\] her",
        ),
        (fails(400, message=SAID), r"\(400: no \[…\] here: \[…\]\).*runtime\.judge_mode=live"),
        (fails(503), r"does not answer \(http_503\)"),
        (Sent(b"<html>"), r"does not answer \(unreadable_reply\)"),
    ],
)
def test_what_the_server_refuses_is_an_error_in_its_words_without_secrets_and_texts(
    file_store: Store, refusal: Sent, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        serving_batches(
            prefers_challenger,
            refuse=lambda _, path: refusal if path == "/v1/files" else None,
        ) as server,
        pytest.raises(JudgeError, match=message) as refused,
    ):
        run(judge_at(server, file_store), pairs(1))

    assert refused.value.__cause__ is None
    assert KEY not in repr(refused.value) + caplog.text
    assert "challenger" not in str(refused.value)
    assert server.batches == []


def test_a_batch_is_not_created_twice_when_only_the_servers_answer_is_lost(
    file_store: Store,
) -> None:
    lost = [fails(502)]

    def lose_first(method: str, path: str) -> Sent | None:
        is_creation = (method, path) == ("POST", "/v1/batches")
        return lost.pop() if is_creation and lost else None

    with serving_batches(prefers_challenger, refuse_after=lose_first) as server:
        result = run(judge_at(server, file_store), pairs(2))

    assert result.is_final
    assert lost == []
    assert len(server.batches) == 1


def test_a_server_that_fails_while_a_batch_runs_costs_nothing(file_store: Store) -> None:
    is_down = True

    def refuse(_: str, path: str) -> Sent | None:
        return fails(503) if is_down and path.startswith("/v1/batches/") else None

    with serving_batches(prefers_challenger, refuse=refuse) as server:
        judge = judge_at(server, file_store)
        with pytest.raises(JudgeError, match="run again when the server works"):
            run(judge, pairs(2))
        is_down = False
        result = run(judge, pairs(2))

    assert result.is_final
    assert len(server.batches) == 1


def test_a_batch_that_the_server_lost_is_not_silently_paid_again(file_store: Store) -> None:
    def refuse(_: str, path: str) -> Sent | None:
        return fails(404) if path.startswith("/v1/batches/") else None

    with serving_batches(prefers_challenger, refuse=refuse) as server:
        for _ in range(2):
            with pytest.raises(JudgeError, match=r"does not know .*batches/.*delete this object"):
                run(judge_at(server, file_store), pairs(1))

    assert len(records(file_store)) == len(server.batches) == 1


def test_every_change_of_the_counts_is_logged_once(
    file_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="infra.judges")
    with serving_batches(prefers_challenger) as server:
        run(judge_at(server, file_store), pairs(3))

    ours = [each for each in caplog.records if each.name.startswith("infra.judges")]
    said = [record.getMessage().partition(": ")[2] for record in ours]
    # The server answers a third of the 6 requests from one look to the next.
    assert said == [
        "submitted a batch of 6 requests",
        "in_progress, 2 of 6 requests answered, 0 failed",
        "finalizing, 4 of 6 requests answered, 0 failed",
        "completed, 6 of 6 requests answered, 0 failed",
    ]


# Budget


def test_no_more_requests_are_submitted_than_calls_are_allowed(file_store: Store) -> None:
    with serving_batches(prefers_challenger) as server:
        judge = judge_at(server, file_store)
        for num_judged, num_requests in ((3, 7), (7, 14), (10, 20), (10, 20)):
            result = run(judge, pairs(10), max_calls=7)
            assert result.num_judged == num_judged
            assert server.num_requests == num_requests

    assert result.is_final


def test_only_what_the_estimate_allows_is_submitted_until_the_money_is_spent(
    file_store: Store,
) -> None:
    """A completion token costs a dollar and a prompt token nothing.

    A request may have 100 completion tokens and has 40. Of 1000 dollars, 10 requests could be paid.
    They cost 400, so 600 are left for 6 more: 240. Then 360 for 3: 120. 240 for 2: 80. 160 for 1:
    40. 120 for 1: 40. 80 are less than the most that a request may cost: 23 are submitted.
    """
    with serving_batches(lambda _: says("[[A=B]]", usage=(5, 40))) as server:
        judge = judge_at(server, file_store, prices=Prices(0, 1e6), max_usd=1000)
        result = run(judge, pairs(20))

    assert [len(batch.requests) for batch in server.batches] == [10, 6, 3, 2, 1, 1]
    assert result.num_calls == 23
    assert result.usd == pytest.approx(920)
    assert result.missing == {"budget_spent": 17}
    with pytest.raises(BudgetError, match="23 calls"):
        result.final_verdicts()


def test_prompt_tokens_are_estimated_from_bytes(file_store: Store) -> None:
    # A prompt token costs a dollar. Requests that cost nothing in the end all fit, one by one.
    with serving_batches(lambda _: says("[[A=B]]", usage=(0, 0))) as server:
        judge = judge_at(server, file_store, prices=Prices(1e6, 0))
        run(judge, pairs(1))
        contents = [m["content"] for m in server.batches[0].requests[0]["body"]["messages"]]
        estimate = math.ceil(sum(len(text.encode()) for text in contents) / 3)

        too_little = replace(judge, max_usd=estimate - 0.5)
        assert run(too_little, pairs(3)).missing == {"budget_spent": 4}
        just_enough = replace(judge, max_usd=estimate + 0.5)
        assert run(just_enough, pairs(3)).is_final

    assert [len(batch.requests) for batch in server.batches] == [2, 1, 1, 1, 1]


def test_a_money_budget_without_prices_is_refused_before_anything_is_submitted(
    file_store: Store,
) -> None:
    with (
        serving_batches(prefers_challenger) as server,
        pytest.raises(JudgeError, match=r"runtime\.judge_prices"),
    ):
        run(judge_at(server, file_store, max_usd=5.0), pairs(2))

    assert server.batches == []


def test_a_second_question_that_cannot_be_paid_waits_for_the_next_budget(
    file_store: Store,
) -> None:
    def forgets(asked: Asked) -> Sent:
        is_second = len(asked.body["messages"]) > 2
        return says("[[B>A]]" if is_second else "Hard.", usage=(0, 100))

    with serving_batches(forgets) as server:
        judge = judge_at(server, file_store, ARENA_V01, prices=Prices(0, 1e6), max_usd=150)
        assert judge.judge(pairs(1)) == [("p0", None, "budget_spent")]
        # The first reply was paid and is collected again for nothing.
        assert replace(judge, max_usd=250).judge(pairs(1)) == [("p0", 1.0, None)]

    assert [len(batch.requests) for batch in server.batches] == [1, 1]
    assert records(file_store) == []


# Kill

JUDGING_PROCESS = """
import sys
from infra.store import open_store
from tests.services.batch_server import BatchServer
from tests.unit.infra import test_batch_judge as this

_, base_url, store = sys.argv
this.run(this.judge_at(BatchServer(base_url), open_store(store)), this.pairs(5))
"""


def test_a_run_that_is_killed_while_it_waits_is_collected_by_the_next_one(
    file_store: Store,
) -> None:
    with serving_batches(prefers_challenger, is_held=True) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", JUDGING_PROCESS, server.base_url, file_store.uri],
            cwd=Path(__file__).parents[3],
        )
        try:
            wait_until(lambda: server.num_looks > 4 or process.poll() is not None, "a look")
        finally:
            process.kill()
            process.wait()
        assert len(server.batches) == len(records(file_store)) == 1

        server.is_held = False
        result = run(judge_at(server, file_store), pairs(5))

    assert result.is_final
    assert (result.num_judged, result.num_cached) == (5, 0)
    assert [len(batch.requests) for batch in server.batches] == [10]
    assert records(file_store) == []


class Killed(BaseException):
    """The process ends here."""


class DyingStore:
    """A store whose process dies before the n-th change of an object with this prefix."""

    def __init__(self, store: Store, prefix: str, changes: int) -> None:
        self._store = store
        self._prefix = prefix
        self._left = changes

    def write(self, key: str, data: bytes) -> None:
        self._count(key)
        self._store.write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._count(key)
        return self._store.create(key, data)

    def _count(self, key: str) -> None:
        if key.startswith(self._prefix):
            self._left -= 1
            if self._left == 0:
                raise Killed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def die(
    server: BatchServer, store: Store, prefix: str, changes: int, *, num_pairs: int = 5
) -> None:
    dying = cast(Store, DyingStore(store, prefix, changes))
    with pytest.raises(Killed):
        run(judge_at(server, dying), pairs(5))


def test_a_batch_whose_id_was_not_recorded_any_more_is_found_by_its_metadata(
    file_store: Store,
) -> None:
    with serving_batches(prefers_challenger) as server:
        die(server, file_store, "batches/", changes=2)  # claimed and created, but not recorded
        assert len(server.batches) == 1
        result = run(judge_at(server, file_store), pairs(5))

    assert result.is_final
    assert len(server.batches) == 1


def test_a_claim_without_a_batch_does_not_keep_anybody_waiting(file_store: Store) -> None:
    is_down = True

    def refuse(method: str, path: str) -> Sent | None:
        return fails(503) if is_down and (method, path) == ("POST", "/v1/batches") else None

    with serving_batches(prefers_challenger, refuse=refuse) as server:
        judge = judge_at(server, file_store)
        with pytest.raises(JudgeError, match="does not answer"):
            run(judge, pairs(1))
        assert len(records(file_store)) == 1
        is_down = False
        assert run(judge, pairs(1)).is_final

    assert len(server.batches) == 1


def test_verdicts_that_were_not_stored_any_more_are_collected_and_not_paid_again(
    file_store: Store,
) -> None:
    with serving_batches(prefers_challenger) as server:
        die(server, file_store, "verdicts/", changes=4)
        result = run(judge_at(server, file_store), pairs(5))

    assert result.is_final
    assert (result.num_cached, result.num_calls) == (3, 7)
    assert len(server.batches) == 1


def test_a_larger_run_submits_only_what_the_killed_one_did_not(file_store: Store) -> None:
    with serving_batches(prefers_challenger) as server:
        die(server, file_store, "verdicts/", changes=1)
        result = run(judge_at(server, file_store), pairs(8))

    assert result.is_final
    assert [len(batch.requests) for batch in server.batches] == [10, 6]
    assert records(file_store) == []


def test_a_run_with_a_smaller_budget_leaves_the_rest_of_a_batch_to_the_next(
    file_store: Store,
) -> None:
    with serving_batches(prefers_challenger) as server:
        die(server, file_store, "verdicts/", changes=1)
        judge = judge_at(server, file_store)
        assert run(judge, pairs(5), max_calls=4).num_judged == 2
        assert len(records(file_store)) == 1
        assert run(judge, pairs(5)).is_final

    assert len(server.batches) == 1
    assert records(file_store) == []


def test_two_processes_do_not_submit_the_same_batch(file_store: Store) -> None:
    with serving_batches(prefers_challenger) as server:
        judge = judge_at(server, file_store)
        mine = BatchRecords(file_store, judge.identity)
        mine.claim(["a", "b"])
        with pytest.raises(JudgeError, match="another process"):
            mine.claim(["b", "a"])
        # Other requests of the same judge have nothing to do with it.
        assert run(judge, pairs(1)).is_final
