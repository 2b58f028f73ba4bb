"""Requests become token ids by the model's template, whole, with one beginning of sequence."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from infra.rewards.score_rows import Ids, ScoreRow, Unscorable, encode_requests, to_scores
from pvar.errors import ScoringError
from pvar.ports import ScoreRequest
from pvar.records import Message, Score
from tests.unit.infra.tiny_models import BOS, save_tokenizer

HELLO = ScoreRequest("p", "r", (Message("user", "Hi"),), "Hello.")
RENDERED = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(save_tokenizer(tmp_path))


def at_prompt_end(conversation: Ids, prompt: Ids) -> int:
    return len(prompt)


def test_conversation_is_rendered_once_with_one_beginning_of_sequence(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert tokenizer("Hi")["input_ids"][0] == BOS  # tokenising rendered text would double it

    [row] = encode_requests(tokenizer, [HELLO], at_prompt_end, 1000)

    assert isinstance(row, ScoreRow)
    assert tokenizer.decode(row.shared + row.own) == RENDERED
    assert tokenizer.decode(row.own) == "Hello.<|eot_id|>"


def test_missing_rewards_have_their_reasons(tokenizer: PreTrainedTokenizerBase) -> None:
    def nowhere(conversation: Ids, prompt: Ids) -> None:
        return None

    # RENDERED has 1 + 9 + 2 + 1 + 14 + 6 + 1 = 32 tokens.
    [[fits], [too_long], [blank], [mismatch]] = [
        encode_requests(tokenizer, [HELLO], at_prompt_end, 32),
        encode_requests(tokenizer, [HELLO], at_prompt_end, 31),
        encode_requests(tokenizer, [HELLO._replace(response=" ")], at_prompt_end, 32),
        encode_requests(tokenizer, [HELLO], nowhere, 32),
    ]

    assert isinstance(fits, ScoreRow)
    assert (too_long, blank) == (Unscorable("too_long"), Unscorable("empty_response"))
    assert mismatch == Unscorable("template_mismatch")


ROW, OTHER = ScoreRow((1,), (2,)), ScoreRow((1,), (3,))


def test_scores_follow_the_requests_and_missing_is_never_zero() -> None:
    requests = [HELLO._replace(response_id=name) for name in "abcd"]
    encoded = [OTHER, Unscorable("too_long"), ROW, OTHER]

    scores = to_scores(requests, encoded, {ROW: 1.5, OTHER: float("inf")})

    assert scores == [
        Score("p", "a", None, "not_finite"),
        Score("p", "b", None, "too_long"),
        Score("p", "c", 1.5),
        Score("p", "d", None, "not_finite"),
    ]


def test_a_conversation_that_the_engine_fails_at_costs_no_other_its_reward() -> None:
    scores = to_scores([HELLO, HELLO], [ROW, OTHER], {ROW: None, OTHER: 1.5})

    assert scores == [Score("p", "r", None, "engine_failed"), Score("p", "r", 1.5)]


def test_rewards_that_are_all_not_finite_are_an_error() -> None:
    with pytest.raises(ScoringError, match="all 2 rewards"):
        to_scores([HELLO, HELLO], [ROW, OTHER], {ROW: float("nan"), OTHER: float("-inf")})


def test_no_requests_have_no_scores() -> None:
    assert to_scores([], [], {}) == []
