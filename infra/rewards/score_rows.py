"""Convert requests to rows of token ids, and rewards of rows to scores.

A row is a conversation with its answer, never truncated, in two parts: the ids that it shares with
the prompt's other answers (computed once for all of them), and its own ids. Equal conversations are
one row, which is scored once, and so have exactly equal rewards.

Missing rewards have a reason: `empty_response`, `too_long`, `not_finite`, `template_refused` (the
model's chat template does not take these roles), `template_mismatch` (the rendered conversation
does not have the parts that the reward is read from), `engine_failed`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pvar.chat import (
    ChatTokenizer,
    conversation_token_ids,
    is_surely_longer,
    prompt_token_ids,
)
from pvar.errors import ChatTemplateError, ScoringError
from pvar.ports import ScoreRequest
from pvar.records import Message, Score

Ids = tuple[int, ...]

SplitRule = Callable[[Ids, Ids], int | None]
"""Maps (ids of the conversation, ids of its prompt) to the index at which its own part begins.

None if there is no such index. The own part has at least one token."""


class ScoreRow(NamedTuple):
    """Token ids of a conversation."""

    shared: Ids
    own: Ids


class Unscorable(NamedTuple):
    """A request that gets no reward."""

    reason: str


def encode_requests(
    tokenizer: ChatTokenizer, requests: Sequence[ScoreRequest], split: SplitRule, max_tokens: int
) -> list[ScoreRow | Unscorable]:
    """One row, or the reason for a missing reward, per request, in order."""
    prompts: dict[tuple[Message, ...], Ids] = {}
    return [_encode(tokenizer, request, split, max_tokens, prompts) for request in requests]


def _encode(
    tokenizer: ChatTokenizer,
    request: ScoreRequest,
    split: SplitRule,
    max_tokens: int,
    prompts: dict[tuple[Message, ...], Ids],
) -> ScoreRow | Unscorable:
    if request.is_empty:
        return Unscorable("empty_response")
    texts = (*(message.content for message in request.messages), request.response)
    if is_surely_longer(tokenizer, texts, max_tokens):
        return Unscorable("too_long")
    try:
        ids = tuple(conversation_token_ids(tokenizer, request.messages, request.response))
        if request.messages not in prompts:
            prompts[request.messages] = tuple(prompt_token_ids(tokenizer, request.messages))
    except ChatTemplateError:
        return Unscorable("template_refused")
    if len(ids) > max_tokens:
        return Unscorable("too_long")
    start = split(ids, prompts[request.messages])
    return Unscorable("template_mismatch") if start is None else ScoreRow(ids[:start], ids[start:])


def scorable(encoded: Sequence[ScoreRow | Unscorable]) -> list[ScoreRow]:
    """The rows among them."""
    return [row for row in encoded if isinstance(row, ScoreRow)]


def to_scores(
    requests: Sequence[ScoreRequest],
    encoded: Sequence[ScoreRow | Unscorable],
    rewards: Mapping[ScoreRow, float | None],
) -> list[Score]:
    """One score per request, in order. Rewards that are None or not finite are missing.

    Raises ScoringError if there are several rewards and none is finite.
    """
    given = [reward for reward in rewards.values() if reward is not None]
    if len(given) > 1 and not any(map(math.isfinite, given)):
        raise ScoringError(
            f"all {len(given)} rewards are NaN or infinite: the model overflows or its weights are "
            "damaged; set its dtype to float32, or download it again"
        )
    return [_score(request, row, rewards) for request, row in zip(requests, encoded, strict=True)]


def _score(
    request: ScoreRequest, row: ScoreRow | Unscorable, rewards: Mapping[ScoreRow, float | None]
) -> Score:
    if isinstance(row, Unscorable):
        return Score(request.prompt_id, request.response_id, None, row.reason)
    reward = rewards[row]
    if reward is None:
        return Score(request.prompt_id, request.response_id, None, "engine_failed")
    if not math.isfinite(reward):
        return Score(request.prompt_id, request.response_id, None, "not_finite")
    return Score(request.prompt_id, request.response_id, reward)
