"""Pairs by reward, from the rewards that a stage has joined."""

from collections.abc import Collection

from pvar.pairs import Pairing, make_pairs
from pvar.selection_config import PairConfig
from tasks.stages.reward_matrix import RewardedRows


def pair_by_reward(
    rewards: RewardedRows, selected: Collection[str], settings: PairConfig, *, keep_truncated: bool
) -> Pairing:
    """Pairs of the selected prompts, given by their ids."""
    return make_pairs(
        [prompt for prompt in rewards.prompts if prompt.prompt_id in selected],
        [response for response in rewards.responses if response.prompt_id in selected],
        [score for score in rewards.combined if score.prompt_id in selected],
        settings.rule,
        seed=settings.seed,
        pairs_per_prompt=settings.pairs_per_prompt,
        min_margin=settings.min_margin,
        keep_truncated=keep_truncated,
    )
