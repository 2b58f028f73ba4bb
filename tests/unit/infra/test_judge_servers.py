"""Judges on servers as there are: what they refuse, leave out, add and call themselves.

P(M) = 3/4 is log-probabilities ln ¼ and ln ¾ of "m" and "M".
"""

import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from infra.judges.openai_judge import OpenAIJudge, Prices
from infra.judges.questions import AlpacaEval, ArenaHard, Questions
from infra.judges.retry_policy import RetryPolicy
from pvar.errors import JudgeError
from pvar.evaluation.alpaca_eval_judge import form_of
from pvar.judging import Answer
from pvar.records import Comparison, Message
from tests.services.chat_server import Asked, ChatServer, fails, says, says_token, serving
from tests.services.loopback_http import Sent
from tests.services.processes import NEVER_SECONDS, wait_until

M_WINS_3_TO_1 = says_token({"m": math.log(1 / 4), "M": math.log(3 / 4)})
ARENA = ArenaHard("v2.0", max_tokens=100, temperature=0.5)
KEY = "sk-planted-8f1c"
B_WINS = says("B is better. [[B>A]]")
QUESTION = "How does one lay a slate roof?"
ANSWERS = ("With long copper nails, from the eaves up.", "Call somebody who can do it.")


def comparison(number: int = 0) -> Comparison:
    return Comparison(f"p{number}", (Message("user", f"{number}. {QUESTION}"),), *ANSWERS)


def comparisons(num: int) -> list[Comparison]:
    return [comparison(number) for number in range(num)]


def judge_at(
    server: ChatServer,
    questions: Questions,
    *,
    max_in_flight: int = 4,
    prices: Prices | None = None,
) -> OpenAIJudge:
    policy = RetryPolicy(NEVER_SECONDS, max_attempts=2, back_off_seconds=0.001)
    return OpenAIJudge("judge-model", questions, server.access(KEY), max_in_flight, policy, prices)


def only(judge: OpenAIJudge) -> Answer:
    [answer] = judge.judge_each([comparison()])
    return answer


def completion(message: Mapping[str, Any], **others: Any) -> Sent:
    """A completion with these parts in its body beside the message."""
    choice = {"message": message, "finish_reason": "stop"}
    return Sent(json.dumps({"choices": [choice], **others}).encode())


def number_of(asked: Asked) -> int:
    """Which of `comparisons` was asked about."""
    return int(asked.prompt.split(f". {QUESTION}")[0].split()[-1])


def refusing(*parameters: str, otherwise: Sent) -> Callable[[Asked], Sent]:
    """A server that knows none of these parameters, and says so as OpenAI does."""

    def behaviour(asked: Asked) -> Sent:
        for name in parameters:
            if name in asked.body:
                return fails(400, message=f"Unsupported parameter: '{name}'", code="unsupported")
        return otherwise

    return behaviour


# What every call is refused for


def openai_words(message: str, param: str | None) -> bytes:
    return json.dumps({"error": {"message": message, "param": param, "code": "x"}}).encode()


def fastapi_words(name: str, message: str, given: object) -> bytes:
    return json.dumps(
        {"detail": [{"loc": ["body", name], "msg": message, "input": given}]}
    ).encode()


@pytest.mark.parametrize(
    ("questions", "status", "body", "wanted"),
    [
        (
            ARENA,
            400,
            openai_words("Only the default (1) value is supported.", "temperature"),
            [
                "400: Only the default (1) value is supported.",
                "change the judge's `temperature` (now 0.5)",
            ],
        ),
        (
            AlpacaEval(),
            400,
            openai_words("'temperature' is not supported with this model", None),
            [
                "'temperature' is not supported",
                "its `kind` to arena_hard, which has a `temperature`",
            ],
        ),
        (
            ARENA,
            422,
            fastapi_words("max_completion_tokens", "Input should be less than or equal to 50", 100),
            [
                "422: body.max_completion_tokens: Input should be less than or equal to 50",
                "change the judge's `max_tokens` (now 100)",
            ],
        ),
        (
            AlpacaEval(),
            400,
            openai_words("Could not finish: max_tokens or model output limit was reached.", None),
            ["kind alpaca_eval asks for one token", "`kind` to arena_hard"],
        ),
        (
            ARENA,
            400,
            b'{"detail": "response format is missing"}',
            ["the server names response_format", "`model` and PVAR_JUDGE_BASE_URL"],
        ),
        (
            ARENA,
            403,
            b"<html><body>Forbidden for you</body></html>",
            ["403: Forbidden for you", "check the judge's `model` and PVAR_JUDGE_BASE_URL"],
        ),
        (ARENA, 400, b"{}", ["refuses the calls (400)", "the judge's `model`"]),
    ],
)
def test_what_every_call_is_refused_for_stops_after_the_first_ones_and_says_what_to_change(
    questions: Questions, status: int, body: bytes, wanted: list[str]
) -> None:
    with serving(lambda _: Sent(body, status)) as server, pytest.raises(JudgeError) as stopped:
        judge_at(server, questions).judge(comparisons(99))

    message = str(stopped.value)
    for words in (*wanted, "the first"):
        assert words in message
    assert "run again" not in message
    # Four alike, and at most as many in flight when the fourth was seen.
    assert 4 <= len(server.asked) <= 8


@pytest.mark.parametrize(
    ("refusal", "wanted"),
    [
        (fails(401, message="wrong key"), "(401: wrong key); check PVAR_JUDGE_API_KEY"),
        (fails(404, message="use gpt-9"), "(404: use gpt-9); check the judge's `model`"),
        (fails(402, message="pay first"), "(402: pay first); add credit"),
    ],
)
def test_what_no_call_can_survive_is_said_in_the_servers_words(refusal: Sent, wanted: str) -> None:
    with serving(lambda _: refusal) as server, pytest.raises(JudgeError) as stopped:
        judge_at(server, ARENA).judge(comparisons(99))

    assert wanted in str(stopped.value)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_a_servers_words_are_short_and_have_no_key_address_or_text(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def parrot(asked: Asked) -> Sent:
        words = f"no: {KEY} at {server.base_url}: {json.dumps(asked.body)} {'and so on ' * 99}"
        return fails(status, message=words)

    caplog.set_level(logging.INFO)
    with (
        serving(parrot, path="/secret-path/v1") as server,
        pytest.raises(JudgeError, match="no: ") as stopped,
    ):
        judge_at(server, ARENA).judge(comparisons(99))

    assert stopped.value.__context__ is None
    logged = [record.getMessage() for record in caplog.records]
    for said in (str(stopped.value), *logged):
        assert len(said) < 700
        for secret in (KEY, "secret-path", "127.0.0.1", "slate roof", "copper nails", "Call some"):
            assert secret not in said


@pytest.mark.parametrize(
    "refusal",
    [
        fails(400, message="This model's maximum context length is 4096 tokens", code="x"),
        fails(400, message="no", code="context_length_exceeded"),
        fails(400, message="no", code="content_filter"),
        fails(403, message="Your input was flagged."),
        Sent(b"too much", 413),
    ],
)
def test_what_is_refused_for_one_call_is_a_missing_verdict_even_if_it_comes_first(
    refusal: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    def behaviour(asked: Asked) -> Sent:
        return refusal if number_of(asked) < 9 else B_WINS

    with serving(behaviour) as server:
        verdicts = judge_at(server, ARENA).judge(comparisons(10))

    reason = f"http_{refusal.status}"
    assert [verdict.reason for verdict in verdicts] == [reason] * 9 + [None]
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_a_verdict_in_flight_shows_that_the_refusals_were_about_single_comparisons() -> None:
    def behaviour(asked: Asked) -> Sent:
        if number_of(asked) == 0:  # a verdict takes longer than refusals
            wait_until(lambda: server.num_answered >= 3, "three refusals", pause_seconds=0.02)
            return B_WINS
        return fails(400, message="I do not like it") if number_of(asked) <= 5 else B_WINS

    with serving(behaviour) as server:
        verdicts = judge_at(server, ARENA, max_in_flight=2).judge(comparisons(12))

    assert [verdict.reason for verdict in verdicts].count("http_400") == 5
    assert sum(verdict.preference == 1 for verdict in verdicts) == 7
    assert len(server.asked) == 12


def test_a_judge_that_gave_verdicts_before_is_stopped_only_for_a_parameter() -> None:
    def reasons(refusal: Sent) -> list[str | None]:
        with serving(lambda _: refusal) as server:
            answers = judge_at(server, ARENA).judge_and_keep(
                comparisons(20), lambda _: None, is_proven=True
            )
            return [answer.verdict.reason for answer in answers]

    assert reasons(fails(400, message="I do not like this one")) == ["http_400"] * 20
    with pytest.raises(JudgeError, match="the judge's `temperature`"):
        reasons(fails(400, message="temperature is not supported"))


# Other ways to ask


@pytest.mark.parametrize(
    "refusal",
    [
        fails(400, message="Unrecognized request argument supplied: max_completion_tokens"),
        Sent(fastapi_words("max_completion_tokens", "Extra inputs are not permitted", 100), 422),
        Sent(
            b'{"object": "error", "code": 400, "param": null, "message": "[{\'type\': '
            b"'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), 'msg': "
            b"'Extra inputs are not permitted', 'input': 100}]\"}",
            400,
        ),
    ],
)
def test_a_server_that_knows_max_tokens_only_is_asked_with_it(
    refusal: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(lambda a: refusal if "max_completion_tokens" in a.body else B_WINS) as server:
        verdicts = judge_at(server, ARENA, max_in_flight=2).judge(comparisons(20))

    assert [verdict.preference for verdict in verdicts] == [1.0] * 20
    accepted = [asked for asked in server.asked if "max_completion_tokens" not in asked.body]
    assert {asked.body["max_tokens"] for asked in accepted} == {100}
    # Only the calls that were in flight then were refused.
    assert len(server.asked) - 20 <= 2
    assert sum("asking without it" in record.getMessage() for record in caplog.records) == 1


def test_a_server_that_takes_neither_name_is_not_asked_for_ever() -> None:
    neither = refusing("max_completion_tokens", "max_tokens", otherwise=B_WINS)
    with serving(neither) as server, pytest.raises(JudgeError, match="`max_tokens`"):
        judge_at(server, ARENA).judge(comparisons(99))

    assert len(server.asked) <= 16


# A judge without log-probabilities


@pytest.mark.parametrize(
    ("text", "preference"),
    [
        ("M", 1.0),
        ("m", 0.0),
        (" m\n", 0.0),
        ('"M"', 1.0),
        ("**M**", 1.0),
        ("`m`.", 0.0),
        ("«M»", 1.0),
        ("Model M", None),
        ("mM", None),
        ("", None),
    ],
)
def test_without_log_probabilities_the_whole_text_decides(
    text: str, preference: float | None
) -> None:
    with serving(lambda _: says(text)) as server:
        answer = only(judge_at(server, AlpacaEval()))

    assert answer.verdict.preference == preference
    assert answer.verdict.reason == (None if preference is not None else "no_verdict")
    if preference is not None:
        assert form_of([answer.evidence]) == "text"
        assert json.loads(str(answer.evidence)) == {"form": "text", "text": text}


@pytest.mark.parametrize("name", ["logprobs", "top_logprobs"])
def test_a_server_that_refuses_logprobs_is_asked_without_them(name: str) -> None:
    with serving(refusing(name, otherwise=says("M"))) as server:
        answers = list(judge_at(server, AlpacaEval(), max_in_flight=1).judge_each(comparisons(5)))

    assert [answer.verdict.preference for answer in answers] == [1.0] * 5
    assert form_of(answer.evidence for answer in answers) == "text"
    assert ["logprobs" in asked.body for asked in server.asked] == [True] + [False] * 5


def test_the_form_of_a_verdict_is_in_its_evidence() -> None:
    with serving(lambda _: M_WINS_3_TO_1) as server:
        tokens = only(judge_at(server, AlpacaEval())).evidence
    with serving(lambda _: says("M")) as server:
        text = only(judge_at(server, AlpacaEval())).evidence

    assert form_of([tokens, None]) == "tokens"
    assert form_of([text]) == "text"
    assert form_of([text, tokens]) == "mixed"
    # Arena-Hard's judgments are free texts.
    assert form_of([None, "B wins. [[B>A]]", '{"form": ', "{}", '{"x": 1}', "[1]"]) is None


def test_log_probabilities_of_the_answers_token_only_are_none() -> None:
    # As some servers send them: a log-probability, without alternatives.
    sent = says("M")
    body = json.loads(sent.body)
    body["choices"][0]["logprobs"] = {"content": [{"token": "M", "logprob": -0.1}]}
    with serving(lambda _: Sent(json.dumps(body).encode())) as server:
        assert form_of([only(judge_at(server, AlpacaEval())).evidence]) == "text"


# A judge that thinks

THOUGHT = "A is fine. [[A>>B]] Or M? m?"


@pytest.mark.parametrize(
    "message",
    [
        {"content": "[[B>A]]", "reasoning_content": THOUGHT},
        {"content": "[[B>A]]", "reasoning": THOUGHT},
        {"content": f"<think>{THOUGHT}</think>\n[[B>A]]"},
        {
            "content": [
                {"type": "thinking", "thinking": THOUGHT},
                {"type": "text", "text": "[[B>A]]"},
            ]
        },
    ],
)
@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_a_label_in_the_thought_does_not_count(version: Any, message: Mapping[str, Any]) -> None:
    questions = ArenaHard(version, max_tokens=100, temperature=0)
    with serving(lambda _: completion(message)) as server:
        answer = only(judge_at(server, questions))

    assert answer.verdict.preference == 1.0
    assert answer.evidence == "[[B>A]]"
    assert len(server.asked) == 1


def test_a_thought_with_labels_and_no_answer_is_no_verdict() -> None:
    message = {"content": None, "reasoning_content": THOUGHT}
    for questions in (AlpacaEval(), ARENA, ArenaHard("v0.1", max_tokens=100, temperature=0)):
        with serving(lambda _: completion(message)) as server:
            assert only(judge_at(server, questions)).verdict == ("p0", None, "only_thought")
        assert len(server.asked) == 1


def thinking_token(token: str, *, others: Mapping[str, float], **message: Any) -> Sent:
    """One token of a thought; the names of the models are among the alternatives."""
    body = json.loads(says_token({token: -0.01, **others}).body)
    body["choices"][0]["message"] = {"content": None, **message}
    return Sent(json.dumps(body).encode())


@pytest.mark.parametrize(
    "sent",
    [
        thinking_token("Okay", others={"m": -9.0, "M": -8.0}, reasoning_content="Okay"),
        thinking_token("<think>", others={"M": -12.0}, content="<think>"),
        completion(
            {"content": ""},
            usage={
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
        ),
    ],
)
def test_a_judge_of_one_token_that_thinks_first_is_stopped_and_says_so(sent: Sent) -> None:
    with (
        serving(lambda _: sent) as server,
        pytest.raises(JudgeError, match=r"thinks before it answers.*arena_hard") as stopped,
    ):
        judge_at(server, AlpacaEval()).judge(comparisons(99))

    assert "run again" not in str(stopped.value)
    assert len(server.asked) <= 8


def test_a_judge_that_names_neither_answer_is_stopped() -> None:
    # Thought in plain text: nothing marks it as such.
    with (
        serving(lambda _: says_token({"Okay": -0.01, "First": -5.0})) as server,
        pytest.raises(JudgeError, match="neither m nor M"),
    ):
        judge_at(server, AlpacaEval()).judge(comparisons(99))

    assert len(server.asked) <= 8


def test_a_judge_that_thinks_too_long_is_stopped_and_the_limit_is_named() -> None:
    with (
        serving(lambda _: says(f"<think>{THOUGHT}", finish_reason="length")) as server,
        pytest.raises(JudgeError, match=r"`max_tokens` \(100\)"),
    ):
        judge_at(server, ARENA).judge(comparisons(99))

    assert len(server.asked) <= 8


# What a reply may lack


@pytest.mark.parametrize(
    ("usage", "prompt", "completion_tokens"),
    [
        ({"prompt_tokens": 10}, 10, None),
        ({"prompt_tokens": 10, "completion_tokens": None}, 10, None),
        ({"completion_tokens": 3, "prompt_tokens": "many"}, None, 3),
        ({"completion_tokens": -3, "prompt_tokens": 10}, 10, None),
        ({}, None, None),
        ("none", None, None),
        (None, None, None),
        ({"prompt_tokens": 10, "completion_tokens": 3, "completion_tokens_details": 5}, 10, 3),
    ],
)
def test_a_count_that_is_absent_leaves_the_verdict_and_makes_the_cost_unknown(
    usage: Any, prompt: int | None, completion_tokens: int | None
) -> None:
    sent = completion({"content": [{"type": "text", "text": "[[B>A]]"}]}, usage=usage)
    with serving(lambda _: sent) as server:
        answer = only(judge_at(server, ARENA, prices=Prices(1e6, 1e6)))

    assert answer.verdict.preference == 1.0
    assert (answer.prompt_tokens, answer.completion_tokens) == (prompt, completion_tokens)
    assert answer.usd == (13.0 if None not in (prompt, completion_tokens) else None)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("others", "served"),
    [
        (
            {"model": "gpt-4.1-2025-04-14", "system_fingerprint": "fp_a"},
            ("gpt-4.1-2025-04-14", "fp_a"),
        ),
        ({"model": "m", "system_fingerprint": None}, ("m", None)),
        ({"model": 7, "system_fingerprint": ""}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_an_answer_says_what_the_server_called_itself(
    others: Mapping[str, Any], served: tuple[str | None, str | None]
) -> None:
    with serving(lambda _: completion({"content": "[[B>A]]"}, **others)) as server:
        answer = only(judge_at(server, ARENA))

    assert (answer.served_model, answer.system_fingerprint) == served


# The estimate


def test_the_estimate_takes_four_characters_for_a_token() -> None:
    template = "<|im_start|>user\n{instruction}{output_1}{output_2}<|im_end|>\n"
    rows = [Comparison("p", (Message("user", "x" * 100),), "y" * 50, "z" * 50)] * 10
    with serving(lambda _: B_WINS) as server:
        judge = judge_at(server, AlpacaEval(template), prices=Prices(2e6, 8e6))
        unpriced = judge_at(server, AlpacaEval(template))

    # 200 characters are 50 tokens, at 2 dollars each; a reply is one token, at 8.
    assert judge.estimate(rows) == (500, 1000.0, 1080.0)
    assert unpriced.estimate(rows) == (500, None, None)
    assert server.asked == []
