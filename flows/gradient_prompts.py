"""The prompts of a configuration for `pvar gradients`, read from its existing artifacts."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from flows.open_inputs import open_inputs
from flows.pinning import pin, pin_reference
from flows.wiring import Wiring
from pvar.chat import answer_token_ids, end_token_ids, prompt_token_ids
from pvar.config import PipelineConfig
from pvar.errors import InputError
from pvar.pairs import ORIGINAL
from pvar.pairs.answers import RewardedAnswer, usable_answers
from pvar.references import Pinned
from pvar.variance import preference_variance
from tasks.engine.progress_log import ProgressLog
from tasks.graph import plan_nodes
from tasks.stages.pair import original_pairs, pairs_of
from tasks.stages.reward_matrix import Rewards, read_rewards
from tasks.training.logps import PromptAnswer, answer_logps
from tasks.training.model import load_in_float32
from tasks.training.prompt_gradients import (
    AnswerPair,
    PromptGroup,
    ScoredAnswers,
    measure_gradients,
)
from tasks.training.token_rows import cut_off_answers, encode_pairs

NUM_GROUPS = 3
"""Thirds of the measured prompts by PVar."""


def gradients_of(
    config: PipelineConfig, wiring: Wiring, num_prompts: int, model: str | None = None
) -> list[PromptGroup]:
    """Gradients on `num_prompts` training prompts, spread evenly over the ranks of PVar.

    model: a model reference, or the folder of a checkpoint of LoRA adapters on the policy; None for
    the starting policy. Returns thirds of the prompts, lowest PVar first. Raises IncompleteError if
    the responses are not sampled and scored yet, and InputError if fewer than three prompts have
    two usable responses.
    """
    from transformers import AutoTokenizer

    pinned = pin(config, wiring)
    selecting, labelling = _rewards(pinned, wiring)  # first: a model may have to be fetched
    policy = wiring.model_folder(pinned.policy)
    open_model = _opener(model, pinned.policy, wiring)
    tokenizer = AutoTokenizer.from_pretrained(policy, trust_remote_code=False)
    pairs = _pairs(labelling, tokenizer, pinned)
    sample = _spread(_scored(selecting, pairs, tokenizer, pinned), num_prompts)
    rows = list(dict.fromkeys(row for prompt in sample for row in prompt.rows))
    with ProgressLog("gradients") as progress:
        if open_model is None:
            measured, log_ratios = load_in_float32(policy), dict.fromkeys(rows, 0.0)
        else:
            progress.begin("log-probabilities of the policy and the model")
            reference = answer_logps(load_in_float32(policy), rows, autocast=False)
            measured = open_model()
            log_ratios = _log_ratios(measured, reference)
        progress.begin(total=len(sample), unit="prompts")
        return measure_gradients(
            measured, _groups(sample), log_ratios, beta=pinned.train.beta, advance=progress.advance
        )


def _rewards(pinned: PipelineConfig, wiring: Wiring) -> tuple[Rewards, Rewards]:
    """The rewards that determine PVar, and those that determine the pairs."""
    nodes, roles = plan_nodes(pinned), pinned.model_roles
    wanted = {**nodes["select"].inputs, **nodes["pair"].inputs}
    wanted.pop("selection")  # not needed, and perhaps not made yet
    with open_inputs(wiring, wanted) as inputs:
        selecting = read_rewards(inputs, roles.selecting, pinned.select)
        if roles.labelling in ((), roles.selecting):
            return selecting, selecting
        return selecting, read_rewards(inputs, roles.labelling, pinned.select)


def _opener(model: str | None, policy: str, wiring: Wiring) -> Callable[[], Any] | None:
    """Loads the model to measure; None for the starting policy, which is its own reference."""
    if model is None:
        return None
    adapter = Path(model).expanduser()
    if (adapter / "adapter_model.safetensors").is_file():
        return lambda: load_in_float32(wiring.model_folder(policy), adapter)
    reference = pin_reference(model, wiring)
    if Pinned.parse(reference).digest == Pinned.parse(policy).digest:
        return None
    return lambda: load_in_float32(wiring.model_folder(reference))


def _log_ratios(model: Any, reference: Mapping[PromptAnswer, float]) -> dict[PromptAnswer, float]:
    """log π_θ(y|x) − log π_ref(y|x) of each row, in nats."""
    own = answer_logps(model, list(reference), autocast=False)
    return {row: own[row] - logp for row, logp in reference.items()}


def _scored(
    rewards: Rewards,
    pairs: Mapping[str, Sequence[AnswerPair]],
    tokenizer: Any,
    config: PipelineConfig,
) -> list[ScoredAnswers]:
    """Every prompt with at least two usable responses. Rewards are in units of the reward scale."""
    scale = rewards.scales[0] if len(rewards.scales) == 1 else 1.0  # combined ones are scaled
    by_prompt = usable_answers(
        rewards.responses,
        rewards.combined,
        prompt_ids={prompt.prompt_id for prompt in rewards.prompts},
        keep_truncated=config.select.keep_truncated,
    ).by_prompt
    cut_off = cut_off_answers(rewards.responses)
    end = end_token_ids(tokenizer)

    def ids(prompt_id: str, answer: RewardedAnswer) -> tuple[int, ...]:
        ending = () if (prompt_id, answer.text) in cut_off else end
        return tuple(answer_token_ids(tokenizer, answer.text, ending))

    return [
        ScoredAnswers(
            prompt.prompt_id,
            tuple(prompt_token_ids(tokenizer, prompt.messages)),
            tuple(ids(prompt.prompt_id, answer) for answer in answers),
            tuple(answer.reward / scale for answer in answers),
            tuple(pairs.get(prompt.prompt_id, ())),
        )
        for prompt in rewards.prompts
        if len(answers := by_prompt.get(prompt.prompt_id, ())) >= 2
    ]


def _pairs(rewards: Rewards, tokenizer: Any, config: PipelineConfig) -> dict[str, list[AnswerPair]]:
    """What the pair rule makes of every prompt, as if all were selected, as training encodes it."""
    if config.pair.rule == ORIGINAL:
        pairing = original_pairs(rewards.prompts, config.pair)
    else:
        pairing = pairs_of(
            rewards.prompts, rewards.rows, config.pair, keep_truncated=config.select.keep_truncated
        )
    encoded = encode_pairs(
        pairing.pairs, rewards.responses, tokenizer, config.train.max_length_tokens
    )
    found: dict[str, list[AnswerPair]] = {}
    for pair in encoded.pairs:
        answers = AnswerPair(tuple(pair.chosen_ids), tuple(pair.rejected_ids))
        found.setdefault(pair.prompt_id, []).append(answers)
    return found


def _spread(prompts: Sequence[ScoredAnswers], num: int) -> list[ScoredAnswers]:
    """Prompts spread evenly over the ranks of PVar, including the lowest and the highest."""
    if min(len(prompts), num) < 3:
        raise InputError(
            f"only {min(len(prompts), num)} prompts to measure ({len(prompts)} have two usable "
            "responses); a correlation needs at least three"
        )
    ordered = sorted(
        prompts,
        key=lambda each: (float(preference_variance(np.array([each.rewards]))[0]), each.prompt_id),
    )
    places = np.linspace(0, len(ordered) - 1, min(num, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]


def _groups(ordered: Sequence[ScoredAnswers]) -> list[Sequence[ScoredAnswers]]:
    """Thirds, whose sizes differ by at most one."""
    cuts = [round(len(ordered) * third / NUM_GROUPS) for third in range(NUM_GROUPS + 1)]
    return [ordered[start:stop] for start, stop in pairwise(cuts)]
