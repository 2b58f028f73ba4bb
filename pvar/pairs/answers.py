"""The answers that pairs are made of: responses joined with their rewards, the unusable named.

Joined by id only. A response is left out under the first of these names that fits:

    other_prompt    its prompt is not among the prompts given
    failed          sampling failed (finish_reason "error")
    truncated       it ran into the token limit (finish_reason "length"), unless kept by option
    empty           nothing but white space
    missing_reward  no score, or one that is None, NaN or infinite
    duplicate_text  the text of an earlier sample of the prompt, but for white space at its ends
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from pvar.accounts import Accounts
from pvar.errors import InputError
from pvar.records import Response, Score


class RewardedAnswer(NamedTuple):
    """A usable response with its reward."""

    response_id: str
    text: str
    reward: float


class Answers(NamedTuple):
    """The usable answers, and what happened to the responses."""

    by_prompt: Mapping[str, tuple[RewardedAnswer, ...]]
    """Prompt id → its answers, best first, equal rewards in the order of their ids."""
    accounts: Accounts
    """In responses."""


def usable_answers(
    responses: Iterable[Response],
    scores: Iterable[Score],
    *,
    prompt_ids: Collection[str],
    keep_truncated: bool,
) -> Answers:
    """Join responses with their scores and leave out those that cannot be trained on.

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
        Accounts(
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
                f"response {response.response_id} comes twice (prompt {response.prompt_id}); "
                "responses are joined by id: remove one"
            )
        by_id[response.response_id] = response
    return list(by_id.values())


def _best_first(answer: RewardedAnswer) -> tuple[float, str]:
    return -answer.reward, answer.response_id
