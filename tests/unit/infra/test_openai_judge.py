"""A language model as judge, against a real HTTP server: what is asked and read, and every trouble.

P(M) = 3/4 is log-probabilities ln ¼ and ln ¾ of "m" and "M".
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from infra.judges.access import JudgeAccess
from infra.judges.calls import retry_after
from infra.judges.openai_judge import OpenAIJudge, Prices
from infra.judges.questions import AlpacaEval, ArenaHard, Questions
from infra.judges.retry_policy import RetryPolicy
from pvar.digest import canonical_json
from pvar.errors import ConfigError, JudgeError
from pvar.evaluation.arena_hard_judge import JudgeTemplate
from pvar.judging import MeteredJudge
from pvar.records import Comparison, Message, Verdict
from tests.services.chat_server import Asked, ChatServer, fails, says, says_token, serving
from tests.services.loopback_http import Sent
from tests.services.processes import NEVER_SECONDS, wait_until

M_WINS_3_TO_1 = says_token({"m": math.log(1 / 4), "M": math.log(3 / 4)})
ARENA_V01 = ArenaHard("v0.1", max_tokens=100, temperature=0.0)
ARENA_V2 = ArenaHard("v2.0", max_tokens=100, temperature=0.5)
KEY = "sk-planted-8f1c"


def comparison(number: int = 0) -> Comparison:
    return Comparison(f"p{number}", (Message("user", f"Question {number}?"),), "alpha", "omega")


def judge_at(
    server: ChatServer,
    questions: Questions | None = None,
    *,
    max_in_flight: int = 2,
    max_attempts: int = 3,
    timeout_seconds: float = NEVER_SECONDS,
    prices: Prices | None = None,
) -> OpenAIJudge:
    return OpenAIJudge(
        "judge-model",
        questions or AlpacaEval(),
        server.access(KEY),
        max_in_flight,
        RetryPolicy(timeout_seconds, max_attempts, back_off_seconds=0.001),
        prices,
    )


def in_turn(*sent: Sent) -> Callable[[Asked], Sent]:
    """Each request its answer; the last one for all that follow."""
    left = list(sent)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def only(judge: OpenAIJudge) -> Verdict:
    [verdict] = judge.judge([comparison()])
    return verdict


# What is asked, and how it is read


def test_the_odds_of_two_tokens_are_the_preference_for_the_second_answer() -> None:
    with serving(lambda _: M_WINS_3_TO_1) as server:
        verdict = only(judge_at(server))

    assert verdict.preference == pytest.approx(0.75, abs=1e-12)
    [asked] = server.asked
    assert asked.authorization == f"Bearer {KEY}"
    parameters = {name: value for name, value in asked.body.items() if name != "messages"}
    assert parameters == {
        "model": "judge-model",
        "max_completion_tokens": 1,
        "temperature": 1.0,
        "logprobs": True,
        "top_logprobs": 5,
    }
    # The first answer is m's, the second M's.
    assert asked.prompt.index("alpha") < asked.prompt.index("omega")
    assert "Question 0?" in asked.prompt


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ({"M": -0.1, "x": -3.0}, 1.0),  # m is outside the top five: impossible
        ({"m": -0.1, "x": -3.0}, 0.0),
        ({"x": -0.1, "y": -3.0}, None),
    ],
)
def test_a_token_outside_of_the_top_is_impossible_and_neither_is_no_verdict(
    top: dict[str, float], expected: float | None
) -> None:
    with serving(lambda _: says_token(top)) as server:
        verdict = only(judge_at(server))

    assert verdict == ("p0", expected, None if expected is not None else "no_verdict")


@pytest.mark.parametrize(
    ("label", "expected"), [("A>>B", 0), ("A>B", 0), ("A=B", 0.5), ("B>A", 1), ("B>>A", 1)]
)
@pytest.mark.parametrize("questions", [ARENA_V01, ARENA_V2])
def test_a_verdict_in_words_is_a_win_a_tie_or_a_loss_of_the_second_answer(
    questions: ArenaHard, label: str, expected: float
) -> None:
    with serving(lambda _: says(f"Both are fine. [[{label}]]")) as server:
        verdict = only(judge_at(server, questions))

    assert verdict == ("p0", expected, None)
    [asked] = server.asked
    assert asked.body["temperature"] == questions.temperature
    assert asked.body["max_completion_tokens"] == 100
    assert "logprobs" not in asked.body
    assert asked.prompt.index("alpha") < asked.prompt.index("omega")


def test_the_whole_judgment_is_kept_as_evidence() -> None:
    with serving(lambda _: says("Because. [[B>>A]]")) as server:
        [answer] = judge_at(server, ARENA_V2).judge_each([comparison()])

    assert answer.evidence == "Because. [[B>>A]]"


def test_a_v01_judge_that_forgot_its_label_is_asked_for_it_once() -> None:
    with serving(in_turn(says("Let me think."), says("So [[B>A]]."))) as server:
        [answer] = judge_at(server, ARENA_V01).judge_each([comparison()])

    assert answer.verdict.preference == 1.0
    assert answer.evidence == "Let me think.\nSo [[B>A]]."
    first, second = server.asked
    assert second.body["messages"][:-2] == first.body["messages"]
    assert second.body["messages"][-2] == {"role": "assistant", "content": "Let me think."}


@pytest.mark.parametrize(("questions", "num_requests"), [(ARENA_V01, 2), (ARENA_V2, 1)])
def test_a_judge_that_gives_no_label_gives_no_verdict(
    questions: ArenaHard, num_requests: int
) -> None:
    with serving(lambda _: says("Hard to say.")) as server:
        verdict = only(judge_at(server, questions))

    assert verdict == ("p0", None, "no_verdict")
    assert len(server.asked) == num_requests


def test_a_judgment_cut_off_before_its_label_says_so() -> None:
    with serving(lambda _: says("First of all", finish_reason="length")) as server:
        assert only(judge_at(server, ARENA_V2)) == ("p0", None, "truncated")


def test_verdicts_keep_the_order_and_equal_comparisons_are_asked_once() -> None:
    rows = [comparison(n) for n in (0, 1, 2, 0)]

    def prefers_odd(asked: Asked) -> Sent:
        number = int(asked.prompt.split("Question ")[1][0])
        time.sleep(0.02 * (2 - number))  # the later, the sooner answered
        return says("[[B>A]]" if number % 2 else "[[A>B]]")

    with serving(prefers_odd) as server:
        verdicts = judge_at(server, ARENA_V2, max_in_flight=3).judge(rows)

    assert verdicts == [("p0", 0, None), ("p1", 1, None), ("p2", 0, None), ("p0", 0, None)]
    assert len(server.asked) == 3


# Identity


def test_everything_that_decides_a_verdict_changes_the_identity_and_nothing_else_does() -> None:
    with serving(lambda _: M_WINS_3_TO_1) as server:
        judge = judge_at(server, ARENA_V01)
    variants = [
        judge,
        replace(judge, model="other"),
        replace(judge, questions=AlpacaEval()),
        replace(judge, questions=AlpacaEval(AlpacaEval().template + " ")),
        replace(judge, questions=replace(ARENA_V01, version="v2.0")),
        replace(judge, questions=replace(ARENA_V01, temperature=0.7)),
        replace(judge, questions=replace(ARENA_V01, max_tokens=101)),
        replace(judge, questions=replace(ARENA_V01, template=JudgeTemplate("Judge!"))),
    ]
    assert len({canonical_json(variant.identity) for variant in variants}) == len(variants)

    same = replace(
        judge,
        questions=replace(ARENA_V01, temperature=0),
        access=JudgeAccess(base_url=SecretStr("http://elsewhere/v1"), api_key=SecretStr("k")),
        max_in_flight=9,
        retry_policy=RetryPolicy(1, 1, 1),
        prices=Prices(1, 1),
    )
    assert canonical_json(same.identity) == canonical_json(judge.identity)
    assert isinstance(judge, MeteredJudge)


# Trouble


def test_a_rate_limit_is_waited_out_for_as_long_as_the_server_says() -> None:
    with serving(in_turn(fails(429, retry_after="1"), M_WINS_3_TO_1)) as server:
        assert only(judge_at(server)).preference == pytest.approx(0.75)

    # Without the header the pause is a millisecond at most; a clock may round by some.
    first, second = server.asked
    assert second.seconds - first.seconds > 0.99


def test_retry_after_may_be_a_date() -> None:
    arrivals: list[datetime] = []
    dates: list[datetime] = []

    def behaviour(_: Asked) -> Sent:
        arrivals.append(datetime.now(UTC))
        if dates:
            return M_WINS_3_TO_1
        dates.append((arrivals[0] + timedelta(seconds=2)).replace(microsecond=0))
        return fails(503, retry_after=format_datetime(dates[0], usegmt=True))

    with serving(behaviour) as server:
        assert only(judge_at(server)).preference == pytest.approx(0.75)

    assert arrivals[1] >= dates[0]


def test_a_server_that_wants_a_long_pause_is_not_asked_again() -> None:
    with serving(lambda _: fails(429, retry_after="3600")) as server:
        assert only(judge_at(server)) == ("p0", None, "rate_limited")

    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (fails(429), "rate_limited"),
        (fails(500), "http_500"),
        (fails(503), "http_503"),
        (fails(408), "http_408"),
        (Sent(b"<html>Bad gateway</html>", content_type="text/html"), "unreadable_reply"),
        (Sent(b'{"choices": []}'), "unreadable_reply"),
        (Sent(b'{"choices": [{"message": {"content": "M"}'), "unreadable_reply"),
        (Sent(b"\xff\xfe"), "unreadable_reply"),
    ],
)
def test_passing_trouble_is_retried_and_lasting_trouble_is_a_missing_verdict(
    trouble: Sent, reason: str
) -> None:
    with serving(in_turn(trouble, trouble, M_WINS_3_TO_1)) as server:
        assert only(judge_at(server)).preference == pytest.approx(0.75)
        assert len(server.asked) == 3

    with serving(lambda _: trouble) as server:
        assert only(judge_at(server)) == ("p0", None, reason)
        assert len(server.asked) == 3


def test_a_server_that_does_not_answer_in_time_is_a_missing_verdict() -> None:
    release = threading.Event()

    def stall(_: Asked) -> Sent:
        release.wait(NEVER_SECONDS)
        return M_WINS_3_TO_1

    with serving(stall) as server:
        verdict = only(judge_at(server, timeout_seconds=1, max_attempts=2))
        # What was sent arrives, though nobody waits for the answer any more.
        wait_until(lambda: len(server.asked) >= 2, "both requests", pause_seconds=0.02)
        release.set()

    assert verdict == ("p0", None, "timeout")
    assert len(server.asked) == 2


def test_a_server_that_is_not_there_is_a_missing_verdict() -> None:
    with serving(lambda _: M_WINS_3_TO_1) as server:
        pass

    assert only(judge_at(server)) == ("p0", None, "no_connection")


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_refusal_of_one_comparison_is_not_repeated_and_leaves_the_others_alone(
    status: int,
) -> None:
    with serving(lambda a: fails(status) if "n 1?" in a.prompt else M_WINS_3_TO_1) as server:
        verdicts = judge_at(server).judge([comparison(n) for n in range(3)])

    assert [v.reason for v in verdicts] == [None, f"http_{status}", None]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (fails(401), "PVAR_JUDGE_API_KEY"),
        (fails(404), "no model 'judge-model'"),
        (fails(402), "no credit left"),
        (fails(429, code="insufficient_quota"), "no credit left"),
    ],
)
def test_what_no_call_can_survive_stops_at_once(refusal: Sent, message: str) -> None:
    with serving(lambda _: refusal) as server, pytest.raises(JudgeError, match=message):
        judge_at(server).judge([comparison(n) for n in range(50)])

    assert len(server.asked) <= 2  # those in flight


def test_verdicts_in_flight_are_delivered_before_the_error() -> None:
    slow_is_asked = threading.Event()

    def behaviour(asked: Asked) -> Sent:
        if "n 0?" in asked.prompt:
            slow_is_asked.set()
            wait_until(lambda: server.num_answered > 0, "the refusal", pause_seconds=0.02)
            return M_WINS_3_TO_1
        slow_is_asked.wait(NEVER_SECONDS)
        return fails(401)

    with serving(behaviour) as server:
        answers = judge_at(server).judge_each([comparison(n) for n in range(9)])
        assert next(answers).verdict.prompt_id == "p0"
        with pytest.raises(JudgeError):
            next(answers)

    # A third only if both answers are taken in at once (exactly: tests/unit/infra/test_in_flight).
    assert len(server.asked) <= 3


def test_an_outage_stops_judging_instead_of_trying_every_comparison() -> None:
    with (
        serving(lambda _: fails(500)) as server,
        pytest.raises(JudgeError, match=r"calls to the judge's server all failed.*http_500"),
    ):
        judge_at(server, max_in_flight=2, max_attempts=1).judge([comparison(n) for n in range(99)])

    # 3 rounds of 2 calls in a row, and the one that was in flight meanwhile.
    assert 6 <= len(server.asked) <= 7


def test_a_late_success_is_delivered_but_does_not_end_an_outage() -> None:
    outage = threading.Event()

    def behaviour(asked: Asked) -> Sent:
        if "n 0?" in asked.prompt:
            outage.wait(NEVER_SECONDS)
            return M_WINS_3_TO_1
        return fails(500)

    with serving(behaviour) as server:
        answers = judge_at(server, max_attempts=1).judge_each([comparison(n) for n in range(99)])
        failed = [next(answers).verdict for _ in range(6)]
        outage.set()
        late = next(answers).verdict
        with pytest.raises(JudgeError, match="all failed"):
            next(answers)

    assert [verdict.preference for verdict in failed] == [None] * 6
    assert late.prompt_id == "p0"
    assert late.preference is not None
    assert len(server.asked) == 7


def test_single_failures_are_no_outage() -> None:
    with serving(lambda a: fails(500) if "1?" in a.prompt else M_WINS_3_TO_1) as server:
        verdicts = judge_at(server, max_attempts=1).judge([comparison(n) for n in range(99)])

    # 1, 11, 21, …, 91.
    assert Counter(verdict.reason for verdict in verdicts) == {None: 89, "http_500": 10}


# Concurrency


def test_the_server_sees_as_many_calls_at_once_as_allowed_and_never_more() -> None:
    three = threading.Barrier(3)

    def together(_: Asked) -> Sent:
        try:
            three.wait(timeout=NEVER_SECONDS)  # with fewer than 3 at a time this breaks
        except threading.BrokenBarrierError:
            return fails(400)
        return M_WINS_3_TO_1

    with serving(together) as server:
        verdicts = judge_at(server, max_in_flight=3).judge([comparison(n) for n in range(12)])

    assert all(verdict.preference is not None for verdict in verdicts)
    assert server.max_in_flight == 3


def test_a_comparison_is_taken_only_when_a_call_can_begin() -> None:
    taken: list[int] = []

    def comparisons() -> Iterable[Comparison]:
        for number in range(9):
            taken.append(number)
            yield comparison(number)

    with serving(lambda _: M_WINS_3_TO_1) as server:
        answers = iter(judge_at(server, max_in_flight=2).judge_each(comparisons()))
        next(answers)
        # The first answer is not taken in yet: two calls had begun, so two were taken.
        assert len(taken) == 2
        assert len(list(answers)) == 8


def test_a_consumer_that_leaves_ends_the_calls_that_wait_to_try_again() -> None:
    rows = [comparison(n) for n in range(9)]
    patient = RetryPolicy(timeout_seconds=NEVER_SECONDS, max_attempts=9, back_off_seconds=1000)
    with serving(lambda a: M_WINS_3_TO_1 if "n 0?" in a.prompt else fails(500)) as server:
        answers = replace(judge_at(server), retry_policy=patient).judge_each(rows)
        next(answers)
        answers.close()  # type: ignore[attr-defined] # would take hours if pauses were sat out

    assert len(server.asked) <= 3


# Money


def test_a_call_costs_what_the_server_counted_times_the_price() -> None:
    prices = Prices(usd_per_million_prompt_tokens=10, usd_per_million_completion_tokens=30)
    sent = (says("Well.", usage=(1000, 100)), says("[[A=B]]", usage=(1200, 10)))
    with serving(in_turn(*sent)) as server:
        [answer] = judge_at(server, ARENA_V01, prices=prices).judge_each([comparison()])

    # The judgment and its continuation: (1000 + 1200) · 10 + (100 + 10) · 30 = 25300 millionths.
    assert answer.usd == pytest.approx(0.0253)


def test_an_unreadable_verdict_is_paid_like_any_other() -> None:
    with serving(lambda _: says("Hm.", usage=(1_000_000, 0))) as server:
        [answer] = judge_at(server, ARENA_V2, prices=Prices(2, 8)).judge_each([comparison()])

    assert answer.verdict.preference is None
    assert answer.usd == pytest.approx(2.0)


@pytest.mark.parametrize(("prices", "usage"), [(None, (5, 5)), (Prices(1, 1), None)])
def test_the_price_is_not_known_without_prices_or_without_a_count(
    prices: Prices | None, usage: tuple[int, int] | None
) -> None:
    with serving(lambda _: says("[[A=B]]", usage=usage)) as server:
        [answer] = judge_at(server, ARENA_V2, prices=prices).judge_each([comparison()])

    assert answer.usd is None


# Secrets

LEAKY = f"Incorrect API key provided: {KEY}. See http://secret-host/v1"


@pytest.mark.parametrize(
    "sent",
    [
        M_WINS_3_TO_1,
        *(fails(status, message=LEAKY, code=KEY) for status in (400, 401, 402, 404, 429, 500)),
        Sent(LEAKY.encode()),
    ],
)
def test_key_and_address_are_in_no_log_error_identity_or_representation(
    sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[object] = []
    with serving(lambda _: sent, path="/secret-path/v1") as server:
        judge = judge_at(server)
        try:
            seen += judge.judge([comparison()])
        except JudgeError as error:
            seen += chain(error)
    seen += [judge, str(judge), dict(judge.identity), judge.access.model_dump_json()]
    seen += [(record.getMessage(), record.exc_text) for record in caplog.records]

    assert server.asked[0].authorization == f"Bearer {KEY}"
    for secret in (KEY, "secret-path", "secret-host"):
        assert secret not in repr(seen)


def chain(error: BaseException | None) -> Iterable[BaseException]:
    """An error and everything that a traceback or a pickler could reach from it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("base_url", "key"),
    [
        (f"http://user:{KEY}@host/v1", None),
        (f"http://host/v1?key={KEY}", None),
        (f"{KEY}", None),
        (f"ftp://host/{KEY}", None),
        ("http://host/v1", f"{KEY}\nX-Evil: 1"),
        ("http://host/v1", f"{KEY}é"),
        ("https://api.openai.com/v1", None),
    ],
)
def test_an_unusable_address_or_key_is_refused_without_repeating_it(
    base_url: str, key: str | None
) -> None:
    access = JudgeAccess(base_url=SecretStr(base_url), api_key=SecretStr(key) if key else None)
    judge = OpenAIJudge("m", AlpacaEval(), access, 1, RetryPolicy(1, 1, 0.001))

    with pytest.raises(ConfigError, match="PVAR_JUDGE_") as refused:
        judge.judge([comparison()])

    assert all(KEY not in repr(error) for error in chain(refused.value))
    assert KEY not in repr(judge)


def test_access_comes_from_its_own_variables_and_not_from_openais(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://somewhere-else/v1")
    with serving(lambda _: M_WINS_3_TO_1) as server:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", server.base_url)
        only(replace(judge_at(server), access=JudgeAccess()))
        monkeypatch.setenv("PVAR_JUDGE_API_KEY", f" {KEY}\n")  # as read from a file
        only(replace(judge_at(server), access=JudgeAccess()))

    assert [asked.authorization for asked in server.asked] == ["Bearer none", f"Bearer {KEY}"]


def test_a_date_to_retry_after_is_one_of_the_servers_clock() -> None:
    # The server's clock is three hours ahead of this machine's.
    answered = datetime.now(UTC) + timedelta(hours=3)
    headers = {
        "date": format_datetime(answered, usegmt=True),
        "retry-after": format_datetime(answered + timedelta(seconds=20), usegmt=True),
    }
    assert retry_after(headers) == 20
