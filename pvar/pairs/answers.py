"""The answers from which pairs are made: responses joined with their rewards by id.

A response is rejected for the first of these reasons that applies:

    other_prompt    its prompt is not among the given prompts
    failed          sampling failed (finish_reason "error")
    truncated       it reached the token limit (finish_reason "length") and keep_truncated is false
    empty           only white space
    missing_reward  no score, or a score that is None, NaN or infinite
    duplicate_text  the same text as an earlier sample of the prompt, ignoring outer white space
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pvar.errors import InputError
from pvar.records import Response, Score
from pvar.row_counts import RowCounts


class RewardedAnswer(NamedTuple):
    """A usable response with its reward."""

    response_id: str
    text: str
    reward: float


class Answers(NamedTuple):
    """The usable answers, and the row counts of the responses."""

    by_prompt: Mapping[str, tuple[RewardedAnswer, ...]]
    """Prompt id → its answers, best first; equal rewards are ordered by id."""
    row_counts: RowCounts
    """Counts responses."""


def usable_answers(
    responses: Iterable[Response],
    scores: Iterable[Score],
    *,
    prompt_ids: Collection[str],
    keep_truncated: bool,
) -> Answers:
    """Join responses with their scores and reject those that cannot be trained on.

    Raises InputError for two responses or two scores with the same id.
    """
    rewards = _rewards_by_response(scores)
    wanted = frozenset(prompt_ids)
    ordered = sorted(_unique(responses), key=lambda each: (each.prompt_id, each.sample_index))
    rejected: Counter[str] = Counter()
    texts: set[tuple[str, str]] = set()
    by_prompt: dict[str, list[RewardedAnswer]] = {}
    for response in ordered:
        reward = rewards.get(response.response_id, math.nan)
        text = (response.prompt_id, response.text.strip())
        reason = _why_unusable(response, reward, wanted, keep_truncated=keep_truncated)
        if reason is None and text in texts:
            reason = "duplicate_text"
        if reason is not None:
            rejected[reason] += 1
            continue
        texts.add(text)
        answer = RewardedAnswer(response.response_id, response.text, reward)
        by_prompt.setdefault(response.prompt_id, []).append(answer)
    return Answers(
        {prompt_id: tuple(sorted(them, key=_best_first)) for prompt_id, them in by_prompt.items()},
        RowCounts(
            rows_in=len(ordered),
            rows_out=len(ordered) - rejected.total(),
            rejected=dict(sorted(rejected.items())),
        ),
    )


def _why_unusable(
    response: Response, reward: float, wanted: frozenset[str], *, keep_truncated: bool
) -> str | None:
    if response.prompt_id not in wanted:
        return "other_prompt"
    if response.finish_reason == "error":
        return "failed"
    if response.finish_reason == "length" and not keep_truncated:
        return "truncated"
    if not response.text.strip():
        return "empty"
    if not math.isfinite(reward):
        return "missing_reward"
    return None


def _rewards_by_response(scores: Iterable[Score]) -> dict[str, float]:
    rewards: dict[str, float] = {}
    for score in scores:
        if score.response_id in rewards:
            raise InputError(
                f"response {score.response_id} has two scores (prompt {score.prompt_id}); "
                "combine several reward models into one reward first"
            )
        rewards[score.response_id] = math.nan if score.reward is None else score.reward
    return rewards


def _unique(responses: Iterable[Response]) -> list[Response]:
    by_id: dict[str, Response] = {}
    for response in responses:
        if response.response_id in by_id:
            raise InputError(
                f"duplicate response id {response.response_id} (prompt {response.prompt_id}); "
                "responses are joined by id, so remove one"
            )
        by_id[response.response_id] = response
    return list(by_id.values())


def _best_first(answer: RewardedAnswer) -> tuple[float, str]:
    return -answer.reward, answer.response_id
