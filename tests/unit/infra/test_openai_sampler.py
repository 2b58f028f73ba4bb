"""Sampling on a server: what is sent, what is made of the answers, and what failures mean."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from transformers import AutoTokenizer

from infra.engines.openai_sampler import OpenAISampler, open_openai_sampler
from infra.judges.access import SamplerAccess
from infra.judges.retry_policy import RetryPolicy
from pvar.chat import prompt_token_ids
from pvar.errors import ConfigError, ModelError, UnavailableError
from pvar.ports import Rejection, SampleRequest
from pvar.records import Message
from pvar.sampler_config import SamplerSettings
from tests.services.completions_server import CompletionsServer, serving
from tests.services.loopback_http import Handler, Sent, listening, sent_json
from tests.services.processes import NEVER_SECONDS
from tests.unit.infra.tiny_models import BOS, END, save_language_model

POLICY = "sha256-0123456789abcdef"
KEY = "sk-do-not-tell"
SETTINGS = SamplerSettings(engine="openai", max_new_tokens=6, max_prompt_tokens=200)
QUESTIONS = [
    SampleRequest("a", (Message("user", "first"),)),
    SampleRequest("b", (Message("user", "second"),)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("policy"))


@contextmanager
def sampler_at(
    folder: Path,
    behaviour: Callable[[Any], Sent],
    *,
    seeds: bool = True,
    served: str = POLICY,
    max_in_flight: int = 4,
) -> Iterator[tuple[OpenAISampler, CompletionsServer]]:
    with serving(served, behaviour) as server:
        access = SamplerAccess(
            base_url=SecretStr(server.base_url), api_key=SecretStr(KEY), seeds=seeds
        )
        retry_policy = RetryPolicy(
            timeout_seconds=NEVER_SECONDS, max_attempts=3, back_off_seconds=0.001
        )
        sampler = open_openai_sampler(folder, POLICY, SETTINGS, max_in_flight, access, retry_policy)
        try:
            yield sampler, server
        finally:
            sampler.close()


def letters(text: str) -> list[int]:
    """Ids of the tiny tokenizer, which knows single bytes."""
    vocabulary = [chr(i) for i in range(33, 127)]  # the first of the byte-level alphabet, sorted
    return [4 + vocabulary.index(letter) for letter in text]


def answers(*all_ids: list[int]) -> Sent:
    choices = [
        {"index": index, "text": "not used", "finish_reason": "stop", "token_ids": ids}
        for index, ids in enumerate(all_ids)
    ]
    return sent_json({"object": "text_completion", "choices": choices})


def test_the_server_is_sent_the_template_s_ids_with_one_beginning(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with sampler_at(folder, lambda _: answers([5, END], [6, END])) as (sampler, server):
        sampler.sample(QUESTIONS, num_responses=2, seed=7)
    prompts = [body["prompt"] for body in server.asked]
    wanted = [prompt_token_ids(tokenizer, request.messages) for request in QUESTIONS]
    assert sorted(prompts) == sorted(wanted)
    assert all(prompt.count(BOS) == 1 for prompt in prompts)
    assert {(body["n"], body["max_tokens"], body["model"]) for body in server.asked} == {
        (2, 6, POLICY)
    }
    assert server.authorizations == {f"Bearer {KEY}"}


def test_answers_go_to_their_prompt_whatever_comes_back_first(folder: Path) -> None:
    second_is_answered = threading.Event()

    def behaviour(body: Any) -> Sent:
        is_first = letters("first")[0] in body["prompt"] and len(body["prompt"]) % 2 == parity
        if is_first:
            assert second_is_answered.wait(NEVER_SECONDS)
            return answers([*letters("hi"), END])
        second_is_answered.set()
        return answers([*letters("longer")])

    tokenizer = AutoTokenizer.from_pretrained(folder)
    # The two prompts differ by one letter in length.
    parity = len(prompt_token_ids(tokenizer, QUESTIONS[0].messages)) % 2
    with sampler_at(folder, behaviour) as (sampler, _):
        responses, rejections = sampler.sample(QUESTIONS, num_responses=1, seed=7)
    assert rejections == []
    assert [(r.prompt_id, r.text, r.num_tokens, r.finish_reason) for r in responses] == [
        ("a", "hi", 3, "stop"),  # the end token counts
        ("b", "longer", 6, "length"),
    ]


def test_a_server_that_returns_no_ids_is_counted_by_its_text(folder: Path) -> None:
    choices = [
        {"index": 0, "text": " hi", "finish_reason": "stop"},
        {"index": 1, "text": "longer", "finish_reason": "length"},
    ]
    with sampler_at(folder, lambda _: sent_json({"choices": choices})) as (sampler, _):
        responses, _ = sampler.sample(QUESTIONS[:1], num_responses=2, seed=7)
    assert [(r.text, r.num_tokens, r.finish_reason) for r in responses] == [
        ("hi", 4, "stop"),  # a space, two letters and the end
        ("longer", 6, "length"),
    ]


def test_a_server_that_returns_fewer_is_asked_for_the_rest(folder: Path) -> None:
    """With another seed, or it would say the same again."""
    replies = iter(["one", "two", "three"])

    def behaviour(body: Any) -> Sent:
        return answers([*letters(next(replies)), END])

    with sampler_at(folder, behaviour) as (sampler, server):
        responses, rejections = sampler.sample(QUESTIONS[:1], num_responses=3, seed=7)
    assert rejections == []
    assert [(each.sample_index, each.text) for each in responses] == [
        (0, "one"), (1, "two"), (2, "three"),
    ]  # fmt: skip
    assert len({each.response_id for each in responses}) == 3
    assert [body["n"] for body in server.asked] == [3, 2, 1]
    assert len({body["seed"] for body in server.asked}) == 3


def test_more_choices_than_asked_equal_texts_and_indexes_make_as_many_responses_as_asked(
    folder: Path,
) -> None:
    choices = [
        {"index": index, "text": "", "finish_reason": "stop", "token_ids": [*letters(text), END]}
        for index, text in ((2, "c"), (0, "a"), (0, "a"), (1, "b"))
    ]
    with sampler_at(folder, lambda _: sent_json({"choices": choices})) as (sampler, server):
        responses, _ = sampler.sample(QUESTIONS[:1], num_responses=3, seed=7)
    assert [(each.sample_index, each.text) for each in responses] == [(0, "a"), (1, "a"), (2, "b")]
    assert len({each.response_id for each in responses}) == 3
    assert len(server.asked) == 1


def test_each_prompt_and_run_has_a_seed_of_its_own(folder: Path) -> None:
    with sampler_at(folder, lambda _: answers([END])) as (sampler, server):
        for seed in (1, 2, 1):
            sampler.sample(QUESTIONS, num_responses=1, seed=seed)
    seeds = [body["seed"] for body in server.asked]
    assert len(set(seeds[:4])) == 4
    assert sorted(seeds[4:]) == sorted(seeds[:2])


def test_no_seed_is_sent_to_a_server_that_fails_at_them(folder: Path) -> None:
    with sampler_at(folder, lambda _: answers([END]), seeds=False) as (sampler, server):
        sampler.sample(QUESTIONS, num_responses=1, seed=1)
    assert all("seed" not in body for body in server.asked)


def test_a_server_of_another_model_is_refused_with_the_command_that_helps(folder: Path) -> None:
    wanted = f"serves other-model, not {POLICY}.*--served-model-name {POLICY}"
    with (
        pytest.raises(ModelError, match=wanted),
        sampler_at(folder, lambda _: answers([END]), served="other-model"),
    ):
        pass


def test_a_refused_prompt_is_rejected_alone(folder: Path) -> None:
    def behaviour(body: Any) -> Sent:
        is_longer = len(body["prompt"]) == longest
        return sent_json({"error": {"message": KEY}}, 400) if is_longer else answers([5, END])

    tokenizer = AutoTokenizer.from_pretrained(folder)
    longest = len(prompt_token_ids(tokenizer, QUESTIONS[1].messages))
    with sampler_at(folder, behaviour) as (sampler, server):
        responses, rejections = sampler.sample(QUESTIONS, num_responses=1, seed=1)
    assert [each.prompt_id for each in responses] == ["a"]
    assert rejections == [Rejection("b", "http_400")]
    assert len(server.asked) == 2  # not asked again


MANY = [SampleRequest(f"p{n}", (Message("user", f"the secret question {n}"),)) for n in range(40)]


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (
            422,
            {"detail": [{"loc": ["body", "return_token_ids"], "msg": "Extra inputs", "input": 1}]},
            ["422: body.return_token_ids: Extra inputs", "does not take return_token_ids"],
        ),
        (
            400,
            {"error": {"message": "max_tokens must be at most 4", "param": "max_tokens"}},
            ["400: max_tokens must be at most 4", "the sampler's `max_new_tokens` (now 6)"],
        ),
        (
            400,
            {"error": {"message": "Only one choice.", "param": "n"}},
            ["400: Only one choice.", "does not take n, which"],
        ),
        (400, {"message": "no per-request seed on a CPU"}, ["PVAR_SAMPLER_SEEDS=false"]),
        (400, {"message": "prompt must be a string"}, ["must take token ids as prompts"]),
        (403, {"message": "not in your country"}, ["403: not in your country", "API_KEY"]),
        (404, {"message": "use gpt-9"}, ["404: use gpt-9", "--served-model-name"]),
    ],
)
def test_what_every_prompt_is_refused_for_stops_after_the_first_ones_in_the_servers_words(
    folder: Path, status: int, body: Any, wanted: list[str]
) -> None:
    with sampler_at(folder, lambda _: sent_json(body, status)) as (sampler, server):
        with pytest.raises(ModelError) as stopped:
            sampler.sample(MANY, num_responses=1, seed=1)
        assert len(server.asked) <= 8  # four alike, and as many in flight
    for words in wanted:
        assert words in str(stopped.value)
    assert "run again" not in str(stopped.value)
    assert stopped.value.__context__ is None


def test_refusals_that_are_about_single_prompts_reject_them_however_many_come_first(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    too_long = {
        "error": {"message": "This model's maximum context length is 9: the secret question"}
    }
    with sampler_at(folder, lambda _: sent_json(too_long, 400)) as (sampler, server):
        responses, rejections = sampler.sample(MANY, num_responses=1, seed=1)
        assert len(server.asked) == len(MANY)
    assert responses == []
    assert rejections == [Rejection(each.prompt_id, "http_400") for each in MANY]
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert all("maximum context length is 9" in line for line in said)
    assert 1 <= len(said) <= 4  # once, or once in each request that was in flight then
    assert "secret question" not in caplog.text


def test_a_prompt_that_speaks_of_a_parameter_is_no_refused_parameter(folder: Path) -> None:
    asked = [
        SampleRequest(f"p{n}", (Message("user", f"How do I plant a seed in bed {n}?"),))
        for n in range(12)
    ]

    def refuse(_: Any) -> Sent:
        told = f"The prompt 'How do I plant a seed in bed {next(beds)}?' was flagged by moderation"
        return sent_json({"error": {"message": told}}, 400)

    beds = iter(range(12))
    with sampler_at(folder, refuse, max_in_flight=1) as (sampler, _):
        _, rejections = sampler.sample(asked, num_responses=1, seed=1)
    assert len(rejections) == 12


def test_a_server_that_answered_before_is_stopped_only_for_a_parameter(folder: Path) -> None:
    replies = {"now": answers([5, END])}
    with sampler_at(folder, lambda _: replies["now"]) as (sampler, _):
        sampler.sample(QUESTIONS, num_responses=1, seed=1)
        replies["now"] = sent_json({"message": "I do not like this one"}, 400)
        _, rejections = sampler.sample(MANY, num_responses=1, seed=1)
        assert len(rejections) == len(MANY)
        replies["now"] = sent_json({"message": "temperature is not supported"}, 400)
        with pytest.raises(ModelError, match=r"`temperature` \(now 1\.0\)"):
            sampler.sample(MANY, num_responses=1, seed=1)


def test_an_account_without_credit_is_not_asked_again_and_again(folder: Path) -> None:
    spent = sent_json({"error": {"message": "top up", "code": "insufficient_quota"}}, 429)
    with sampler_at(folder, lambda _: spent, max_in_flight=1) as (sampler, server):
        with pytest.raises(UnavailableError, match=r"no credit left \(429: top up\); add"):
            sampler.sample(QUESTIONS, num_responses=1, seed=1)
        assert len(server.asked) == 1


def test_a_server_that_wants_a_long_pause_is_named_so(folder: Path) -> None:
    busy = sent_json({}, 429)._replace(headers={"Retry-After": "3600"})
    with sampler_at(folder, lambda _: busy, max_in_flight=1) as (sampler, server):
        with pytest.raises(UnavailableError, match=r"http_429, and asks for a pause of 3600 s"):
            sampler.sample(QUESTIONS, num_responses=1, seed=1)
        assert len(server.asked) == 1


# What a reply may lack


@pytest.mark.parametrize(
    "choices",
    [
        [{"text": "a", "finish_reason": "stop"}, {"text": "b", "finish_reason": "stop"}],
        [{"index": None, "text": "a"}, {"index": "second", "text": "b", "finish_reason": 7}],
        [{"index": 1, "text": "b", "token_ids": None}, {"index": 0, "text": "a", "token_ids": "x"}],
        [
            {"index": 0, "token_ids": letters("a")},
            {"index": 1, "text": None, "token_ids": letters("b")},
        ],
        [None, {"index": 0}, {"index": 1, "text": "a"}, {"index": 2, "text": "b", "logprobs": 3}],
    ],
)
def test_of_a_choice_only_its_ids_or_its_text_must_be_there(
    folder: Path, choices: list[Any]
) -> None:
    with sampler_at(folder, lambda _: sent_json({"choices": choices})) as (sampler, server):
        responses, rejections = sampler.sample(QUESTIONS[:1], num_responses=2, seed=1)
        assert len(server.asked) == 1
    assert rejections == []
    assert [(each.sample_index, each.text) for each in responses] == [(0, "a"), (1, "b")]


def test_choices_that_cannot_be_read_are_asked_for_again(folder: Path) -> None:
    """The readable ones of a reply count; without any, it is no reply."""
    replies = iter([[{"text": "a"}, {"text": None}], [{"index": 0}], [{"text": "b"}]])
    with sampler_at(folder, lambda _: sent_json({"choices": next(replies)})) as (sampler, server):
        responses, _ = sampler.sample(QUESTIONS[:1], num_responses=2, seed=1)
    assert [each.text for each in responses] == ["a", "b"]
    assert [body["n"] for body in server.asked] == [2, 1, 1]


def test_an_address_of_a_web_page_is_named(folder: Path) -> None:
    class Page(Handler):
        def do_GET(self) -> None:
            self.send(Sent(b"<html>Welcome</html>", content_type="text/html"))

    quick = RetryPolicy(timeout_seconds=NEVER_SECONDS, max_attempts=2, back_off_seconds=0.001)
    with listening(Page) as address:
        access = SamplerAccess(base_url=SecretStr(address), api_key=SecretStr(KEY))
        with pytest.raises(UnavailableError, match=r"\(unreadable_reply\); check PVAR_SAMPLER_BA"):
            open_openai_sampler(folder, POLICY, SETTINGS, 1, access, quick)


def test_a_prompt_that_the_template_refuses_is_not_sent(tmp_path: Path) -> None:
    save_language_model(tmp_path)
    no_system = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    template = tmp_path / "chat_template.jinja"
    template.write_text(no_system + template.read_text())
    refused = SampleRequest("r", (Message("system", "Be brief."), Message("user", "?")))
    with sampler_at(tmp_path, lambda _: answers([5, END])) as (sampler, _):
        responses, rejections = sampler.sample([refused, *QUESTIONS], num_responses=1, seed=1)
    assert rejections == [Rejection("r", "refused_by_chat_template")]
    assert [each.prompt_id for each in responses] == ["a", "b"]


def test_a_prompt_that_is_too_long_is_not_sent(folder: Path) -> None:
    long = SampleRequest("long", (Message("user", "x" * 300),))
    with sampler_at(folder, lambda _: answers([5, END])) as (sampler, server):
        responses, rejections = sampler.sample([long, QUESTIONS[0]], num_responses=1, seed=1)
    assert rejections == [Rejection("long", "prompt_too_long")]
    assert [each.prompt_id for each in responses] == ["a"]
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_asked_again(folder: Path) -> None:
    failures = [sent_json({}, 503), sent_json("no completion")]
    with sampler_at(folder, lambda _: failures.pop() if failures else answers([5, END])) as (
        sampler,
        server,
    ):
        responses, _ = sampler.sample(QUESTIONS[:1], num_responses=1, seed=1)
    assert len(responses) == 1
    assert len(server.asked) == 3


def test_a_server_that_stays_down_ends_the_stage_without_naming_secrets(folder: Path) -> None:
    trouble = sent_json({"error": {"message": KEY}}, 500)
    with sampler_at(folder, lambda _: trouble) as (sampler, server):
        with pytest.raises(
            UnavailableError, match=r"http_500, 3 attempts.*complete shards are kept"
        ) as error:
            sampler.sample(QUESTIONS[:1], num_responses=1, seed=1)
        assert len(server.asked) == 3
    assert KEY not in str(error.value)
    assert server.base_url not in str(error.value)
    assert error.value.__cause__ is None


def test_a_server_that_is_not_there_is_unavailable(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:  # nobody listens there afterwards
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    access = SamplerAccess(base_url=SecretStr(address), api_key=SecretStr(KEY))
    quick = RetryPolicy(timeout_seconds=NEVER_SECONDS, max_attempts=2, back_off_seconds=0.001)
    with pytest.raises(UnavailableError, match=r"cannot be reached \(no_connection\)"):
        open_openai_sampler(folder, POLICY, SETTINGS, 1, access, quick)


def test_no_more_requests_are_in_flight_than_allowed(folder: Path) -> None:
    two_are_here = threading.Barrier(
        2, timeout=NEVER_SECONDS
    )  # broken if they came one after the other

    def behaviour(_: Any) -> Sent:
        two_are_here.wait()
        return answers([END])

    many = [SampleRequest(str(n), (Message("user", "?"),)) for n in range(8)]
    with sampler_at(folder, behaviour, max_in_flight=2) as (sampler, server):
        sampler.sample(many, num_responses=1, seed=1)
    assert server.max_in_flight == 2


def test_without_an_address_the_error_names_the_variables(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PVAR_SAMPLER_BASE_URL", "PVAR_SAMPLER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="PVAR_SAMPLER_API_KEY, or set PVAR_SAMPLER_BASE_URL"):
        open_openai_sampler(folder, POLICY, SETTINGS, 1, SamplerAccess())
