"""A reward model on a server: what each kind is sent and gives, and what is said if it fails."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Literal, get_args

import pytest

from infra.judges.retry_policy import RetryPolicy
from infra.preconditions import refuse_missing
from infra.rewards.http_scorer import HttpScorer, RewardAccess, open_http_scorer
from pvar.config import PipelineConfig
from pvar.errors import InputError, PvarError, ScoringError, UnavailableError
from pvar.ports import ScoreRequest
from pvar.records import Message
from pvar.reward_config import HttpReward
from tests.services.loopback_http import Sent, sent_json
from tests.services.reward_server import RewardCall, RewardServer, by_length, rewarding, rewards

Api = Literal["pvar", "vllm_classify", "vllm_score", "tei_predict", "tei_rerank"]
AT_ONCE = RetryPolicy(timeout_seconds=20, max_attempts=3, back_off_seconds=0)
PROMPT = (Message("user", "Why is the sky so blue today?"),)
MESSAGES = [{"role": "user", "content": "Why is the sky so blue today?"}]
KEY = "sk-very-secret-0815"


def asked(*texts: str) -> list[ScoreRequest]:
    return [ScoreRequest("p", f"r{row}", PROMPT, text) for row, text in enumerate(texts)]


@contextmanager
def scoring(
    server: RewardServer, api: Api = "pvar", *, limit: int = 4, key: str = KEY
) -> Iterator[HttpScorer]:
    settings = HttpReward(name="mine", model="rm", api=api)
    with closing(open_http_scorer(settings, limit, server.access(key), AT_ONCE)) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("api", "path", "body"),
    [
        ("pvar", "/reward", {"model": "rm", "messages": MESSAGES, "response": "Rayleigh."}),
        (
            "vllm_classify",
            "/classify",
            {
                "model": "rm",
                "messages": [*MESSAGES, {"role": "assistant", "content": "Rayleigh."}],
                "add_generation_prompt": False,
                "use_activation": False,
            },
        ),
        (
            "vllm_score",
            "/score",
            {
                "model": "rm",
                "text_1": PROMPT[0].content,
                "text_2": "Rayleigh.",
                "use_activation": False,
            },
        ),
        (
            "tei_predict",
            "/predict",
            {"inputs": [[PROMPT[0].content, "Rayleigh."]], "raw_scores": True, "truncate": False},
        ),
        (
            "tei_rerank",
            "/rerank",
            {
                "query": PROMPT[0].content,
                "texts": ["Rayleigh."],
                "raw_scores": True,
                "truncate": False,
            },
        ),
    ],
)
def test_each_api_is_sent_and_read_in_its_own_form(api: Api, path: str, body: Any) -> None:
    with rewarding() as server, scoring(server, api) as scorer:
        (score,) = scorer.score(asked("Rayleigh."))
    assert server.calls == [RewardCall(path, body, f"Bearer {KEY}")]
    assert (score.prompt_id, score.response_id, score.reward) == ("p", "r0", 9.5)


def test_scores_are_in_order_and_equal_conversations_are_asked_about_once() -> None:
    texts = ["x" * (row % 7) for row in range(40)]
    with rewarding() as server, scoring(server, limit=3) as scorer:
        scores = scorer.score(asked(*texts))
    assert [(each.response_id, each.reward) for each in scores] == [
        (f"r{row}", row % 7 + 0.5) for row in range(40)
    ]
    assert len(server.calls) == 7
    assert server.max_in_flight <= 3


def test_what_has_no_reward_is_missing_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    def behaviour(call: RewardCall) -> Sent:
        match call.response:
            case "null":
                return rewards(call.path, None)
            case "nan":
                return Sent(b'{"reward": NaN}')
            case "a response that is far too long":
                said = f"maximum context length is 8: {call.response}"
                return sent_json({"error": {"message": said}}, 400)
            case _:
                return by_length(call)

    with rewarding(behaviour) as server, scoring(server) as scorer:
        scores = scorer.score(asked("null", "nan", "a response that is far too long", "four"))
    assert [(each.reward, each.reason) for each in scores] == [
        (None, "no_reward"),
        (None, "not_finite"),
        (None, "http_400"),
        (4.5, None),
    ]
    assert "maximum context length is 8" in caplog.text
    assert "far too long" not in caplog.text


@pytest.mark.parametrize("api", get_args(Api))
def test_only_a_server_of_the_users_own_is_asked_about_empty_responses(api: Api) -> None:
    """It can answer null. A model has a reward for anything, also for a text without an answer."""
    with rewarding() as server, scoring(server, api) as scorer:
        scores = scorer.score(asked("", "four", " \n"))
        nothing = scorer.score(asked(""))
    found = [(each.response_id, each.reward, each.reason) for each in (*scores, *nothing)]
    if api == "pvar":
        assert found[0] == found[3] == ("r0", 0.5, None)
        assert found[2] == ("r2", 2.5, None)
    else:
        assert found[0] == found[3] == ("r0", None, "empty_response")
        assert found[2] == ("r2", None, "empty_response")
        assert [call.response for call in server.calls] == ["four"]
    assert found[1] == ("r1", 4.5, None)


def test_a_server_that_is_busy_is_asked_again() -> None:
    busy = iter([503, 429])

    def behaviour(call: RewardCall) -> Sent:
        status = next(busy, None)
        return by_length(call) if status is None else Sent(b"", status, {"Retry-After": "0"})

    with rewarding(behaviour) as server, scoring(server, limit=1) as scorer:
        assert [each.reward for each in scorer.score(asked("four"))] == [4.5]
    assert len(server.calls) == 3


REFUSED = sent_json({"error": {"message": f"unknown field: {KEY} http://host/x"}}, 422)


@pytest.mark.parametrize(
    ("sent", "error", "says"),
    [
        (
            REFUSED,
            ScoringError,
            r"refuses the requests \(422: unknown field.*first [0-9]+ requests",
        ),
        (Sent(b"", 401), ScoringError, "does not accept the key.*check PVAR_REWARD_API_KEY"),
        (Sent(b"", 404), ScoringError, "has no /reward, or no model 'rm'.*PVAR_REWARD_BASE_URL"),
        (Sent(b"", 500), UnavailableError, r"did not answer \(http_500, 3 attempts\)"),
        (sent_json({"score": 1}), ScoringError, r"another form than api pvar has \(reward: Field"),
        (sent_json({"reward": "1"}), ScoringError, "another form"),
        (sent_json({"reward": True}), ScoringError, "another form"),
        (Sent(b"<html>"), ScoringError, "another form"),
    ],
)
def test_what_ends_the_stage_says_what_to_change_and_no_secret(
    sent: Sent, error: type[PvarError], says: str
) -> None:
    with (
        rewarding(lambda _: sent) as server,
        scoring(server) as scorer,
        pytest.raises(error, match=says) as refused,
    ):
        scorer.score(asked(*(f"response {row}" for row in range(20))))
    said = str(refused.value)
    assert "mine" in said
    assert KEY not in said
    assert server.base_url not in said
    assert "http://host/x" not in said


@pytest.mark.parametrize(
    ("api", "sent"),
    [
        (
            "vllm_score",
            sent_json(
                {
                    "error": {
                        "message": "This model's maximum context length is 512 tokens. However, "
                        "your prompt contains at least 513 input tokens.",
                        "type": "BadRequestError",
                        "param": "input_tokens",
                        "code": 400,
                    }
                },
                400,
            ),
        ),
        (
            "tei_predict",
            sent_json(
                {
                    "error": "Input validation error: `inputs` must have less than 512 tokens. "
                    "Given: 813",
                    "error_type": "Validation",
                },
                422,
            ),
        ),
    ],
)
def test_responses_that_are_all_too_long_do_not_end_the_stage(api: Api, sent: Sent) -> None:
    """As the servers word it; later responses may be shorter."""
    responses = [f"a long response {row}" for row in range(20)]
    with (
        rewarding(lambda call: sent if "long" in call.response else by_length(call)) as server,
        scoring(server, api) as scorer,
    ):
        scores = scorer.score(asked(*responses, "four"))
    assert {each.reason for each in scores[:-1]} <= {"http_400", "http_422"}
    assert scores[-1].reward == 4.5


def test_a_model_with_two_classes_is_no_reward_model() -> None:
    body = {"data": [{"index": 0, "label": "a", "probs": [0.2, 0.8], "num_classes": 2}]}
    with (
        rewarding(lambda _: sent_json(body)) as server,
        scoring(server, "vllm_classify") as scorer,
        pytest.raises(ScoringError, match=r"data\.0\.probs: List should have at most 1 item"),
    ):
        scorer.score(asked("x"))


def configured() -> PipelineConfig:
    own = {"kind": "http", "name": "mine", "model": "rm", "api": "pvar"}
    return PipelineConfig.model_validate({"score": {"reward_models": [own]}})


def test_the_server_is_asked_before_a_run_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse: Callable[[], None] = lambda: refuse_missing(configured(), ["score"])  # noqa: E731
    monkeypatch.delenv("PVAR_REWARD_BASE_URL", raising=False)
    with pytest.raises(InputError, match=r"reward_models\.0: PVAR_REWARD_BASE_URL is not an addr"):
        refuse()
    refuse_missing(configured(), [])
    with rewarding() as server:
        monkeypatch.setenv("PVAR_REWARD_BASE_URL", server.base_url)
        refuse()
        assert len(server.calls) == 1
    with pytest.raises(UnavailableError, match=r"did not answer \(no_connection, 1 attempts\)"):
        refuse()
    with rewarding(lambda _: REFUSED) as server:
        monkeypatch.setenv("PVAR_REWARD_BASE_URL", server.base_url)
        with pytest.raises(InputError, match=r"refuses a test request \(http_422\)"):
            refuse()


def test_the_address_is_read_from_the_environment_of_reward_models_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PVAR_JUDGE_BASE_URL", "http://judge/v1")
    monkeypatch.setenv("PVAR_REWARD_BASE_URL", "http://rewards")
    assert RewardAccess().base_url.get_secret_value() == "http://rewards"
