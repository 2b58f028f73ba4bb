"""The prompts of a configuration for `pvar gradients`, read from its existing artifacts."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flows.pinning import pin
from flows.wiring import Wiring
from pvar.chat import ChatTokenizer, answer_token_ids, end_token_ids, prompt_token_ids
from pvar.config import PipelineConfig
from pvar.errors import InputError
from pvar.pairs.answers import RewardedAnswer, usable_answers
from pvar.variance import preference_variance
from tasks.engine.artifact import open_artifact
from tasks.engine.progress_log import ProgressLog
from tasks.graph import plan_nodes
from tasks.stages.reward_matrix import Rewards, read_rewards
from tasks.training.prompt_gradients import PromptGradient, ScoredAnswers, measure_gradients
from tasks.training.token_rows import cut_off_answers


def gradients_of(config: PipelineConfig, wiring: Wiring, num_prompts: int) -> list[PromptGradient]:
    """Gradients of the policy on `num_prompts` training prompts, spread evenly over ranks of PVar.

    Raises IncompleteError if the responses are not sampled and scored yet, and InputError if fewer
    than three prompts have two usable responses.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pinned = pin(config, wiring)
    node = plan_nodes(pinned)["select"]
    with tempfile.TemporaryDirectory(dir=_existing(wiring.settings.home)) as scratch:
        inputs = {
            name: open_artifact(wiring.store, keys.stage, keys.digest, Path(scratch))
            for name, keys in node.inputs.items()
        }
        rewards = read_rewards(inputs, node.spec.model_dump()["reward_models"], pinned.select)
    folder = wiring.model_folder(pinned.policy)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    sample = _spread(_scored(rewards, tokenizer, pinned), num_prompts)
    found = []
    with ProgressLog("gradients") as progress:
        progress.begin(total=len(sample), unit="prompts")
        for gradient in measure_gradients(model, sample, beta=pinned.train.beta):
            found.append(gradient)
            progress.advance()
    return found


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _scored(
    rewards: Rewards, tokenizer: ChatTokenizer, config: PipelineConfig
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
        )
        for prompt in rewards.prompts
        if len(answers := by_prompt.get(prompt.prompt_id, ())) >= 2
    ]


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
