"""Convert the artifacts of prompts, responses and scores to arrays: one row per prompt.

The reward matrix has the axes (reward models M, prompts P, responses N). A response that cannot be
used (truncated, empty, duplicate text, without reward) is NaN, by the same rules as in the pairs,
so that PVar is measured on responses that can be trained on.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pvar.combine import CombinationRule
from pvar.pairs.answers import Answers, usable_answers
from pvar.records import Prompt, Response, Score, Split
from pvar.scale import scale_from_spread
from pvar.selection import Candidates, RewardMatrix, measure_rewards
from pvar.selection_config import RewardSettings
from tasks.engine.artifact import Artifact
from tasks.stages.exclude import excluded_prompts
from tasks.stages.ingest import paired_prompts
from tasks.stages.sample import RESPONSES
from tasks.stages.score import SCORES

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rewards:
    """The inputs of stage select, joined by id."""

    prompts: list[Prompt]
    """Prompts of the split, in the order of their ids."""
    responses: list[Response]
    matrix: Floats
    """(M, P, N); NaN is missing or unusable."""
    num_tokens: Floats
    """(P, N) length of each usable response in tokens; NaN for others."""
    scales: tuple[float, ...]
    """Reward scale τ of each model."""
    combined: list[Score]
    """One reward per response: its reward, or over several models the mean of reward / scale."""
    left_out: Mapping[str, int]
    """Number of unusable responses, by the name of the rule."""
    num_excluded: int | None
    """Training prompts that are an exam's and left out; None without the input `exclusions`."""
    usable: Mapping[str, Sequence[str]]
    """Prompt id → ids of its usable responses, in the order of the matrix."""

    def combined_by(self, rule: CombinationRule) -> RewardMatrix:
        """The rewards from which measures are computed."""
        return RewardMatrix(self.matrix, self.scales, rule, self.num_tokens)


def read_rewards(
    inputs: Mapping[str, Artifact],
    reward_models: Sequence[str],
    settings: RewardSettings,
    split: Split = "train",
) -> Rewards:
    """Join the prompts of a split, their responses and the scores of every model by id.

    Prompts that the input `exclusions` names are left out, with their responses, if it is given.
    """
    exclusions = inputs.get("exclusions")
    excluded = excluded_prompts(exclusions) if exclusions else frozenset[str]()
    candidates = paired_prompts(inputs["prompts"], split)
    prompts = [prompt for prompt in candidates if prompt.prompt_id not in excluded]
    sampled = inputs["responses"].rows(RESPONSES, Response)
    responses = [response for response in sampled if response.prompt_id not in excluded]
    penalties = {
        response.response_id: settings.missing_eos_penalty
        for response in responses
        if response.finish_reason == "length"
    }
    scores = [
        _finite_rewards(inputs[f"scores-{name}"].rows(SCORES, Score), penalties)
        for name in reward_models
    ]
    answers = _usable_answers(prompts, responses, scores, keep_truncated=settings.keep_truncated)
    usable = {
        prompt_id: [answer.response_id for answer in them]
        for prompt_id, them in answers.by_prompt.items()
    }
    width = max((len(ids) for ids in usable.values()), default=0)
    matrix = np.full((len(scores), len(prompts), max(width, 1)), np.nan)
    num_tokens = np.full(matrix.shape[1:], np.nan)
    lengths = {response.response_id: response.num_tokens for response in responses}
    for row, prompt in enumerate(prompts):
        for column, response_id in enumerate(usable.get(prompt.prompt_id, ())):
            num_tokens[row, column] = lengths[response_id]
            for model, rewards in enumerate(scores):
                matrix[model, row, column] = rewards[response_id]
    scales = tuple(
        scale_from_spread(model) if settings.reward_scale == "spread" else settings.reward_scale
        for model in matrix
    )
    return Rewards(
        prompts,
        responses,
        matrix,
        num_tokens,
        scales,
        _combine(responses, scores, scales),
        answers.row_counts.rejected,
        len(candidates) - len(prompts) if exclusions else None,
        usable,
    )


def _finite_rewards(scores: list[Score], penalties: Mapping[str, float]) -> dict[str, float]:
    return {
        score.response_id: score.reward - penalties.get(score.response_id, 0.0)
        for score in scores
        if score.reward is not None
    }


def _usable_answers(
    prompts: list[Prompt],
    responses: list[Response],
    scores: list[dict[str, float]],
    *,
    keep_truncated: bool,
) -> Answers:
    """The usable responses that every model has scored. Their rewards here have no meaning."""
    common = [
        Score(response.prompt_id, response.response_id, 0.0)
        for response in responses
        if all(response.response_id in rewards for rewards in scores)
    ]
    return usable_answers(
        responses,
        common,
        prompt_ids={prompt.prompt_id for prompt in prompts},
        keep_truncated=keep_truncated,
    )


def _combine(
    responses: list[Response], scores: list[dict[str, float]], scales: tuple[float, ...]
) -> list[Score]:
    combined = []
    for response in responses:
        rewards = [model.get(response.response_id) for model in scores]
        present = [reward for reward in rewards if reward is not None]
        if len(present) < len(scores):
            combined.append(Score(response.prompt_id, response.response_id, None, "missing_reward"))
        elif len(scores) == 1:
            combined.append(Score(response.prompt_id, response.response_id, present[0]))
        else:
            scaled = float(np.mean(np.array(present) / np.array(scales)))
            combined.append(Score(response.prompt_id, response.response_id, scaled))
    return combined


def to_candidates(rewards: Rewards, matrix: RewardMatrix) -> Candidates:
    """The prompts with all measures of the strategies."""
    return Candidates(
        prompt_ids=np.array([prompt.prompt_id for prompt in rewards.prompts], dtype=str),
        measures=measure_rewards(matrix),
        num_tokens=_mean_tokens(rewards),
    )


def _mean_tokens(rewards: Rewards) -> NDArray[np.int64]:
    """Number of tokens of a prompt's pair: twice the mean length of its responses."""
    totals: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for response in rewards.responses:
        totals[response.prompt_id] += response.num_tokens
        counts[response.prompt_id] += 1
    return np.array(
        [
            round(2 * totals[prompt.prompt_id] / max(counts[prompt.prompt_id], 1))
            for prompt in rewards.prompts
        ],
        dtype=np.int64,
    )
