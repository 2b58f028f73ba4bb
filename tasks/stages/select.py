"""Stage select: preference variance of each training prompt, the choice, and the pairs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pvar.accounts import Accounts
from pvar.artifacts import ShardSpec, Summary
from pvar.combine import combine_preference_variance_stderr
from pvar.config import SelectConfig
from pvar.pairs import SEEDED_RULES, Annotation, Pairing, make_pairs
from pvar.records import Pair, Score
from pvar.selection import SEEDED, Candidates, Selection, select
from pvar.variance import saturation_share
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import PromptVariance, write_table
from tasks.stages.implicit_gap import implicit_gap
from tasks.stages.reward_matrix import Rewards, measure, read_rewards
from tasks.stages.score import SCORES

PAIRS = "pairs.parquet"
VARIANCE = "variance.parquet"


class SelectSpec(BaseModel):
    """What decides the pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: SelectConfig
    reward_models: tuple[str, ...]
    """Names of the score inputs that PVar and pairs are made of, in order."""
    implicit_model: str | None = None
    """Name of the score input that only the implicit gap is made of."""


def without_unused_seed(settings: SelectConfig) -> SelectConfig:
    """The settings with one and the same seed where nothing is drawn: runs share the result."""
    if settings.strategy in SEEDED or settings.pairs in SEEDED_RULES:
        return settings
    return settings.model_copy(update={"seed": 0})


class Choice(NamedTuple):
    """The prompts that were chosen, and what they were chosen by."""

    rewards: Rewards
    candidates: Candidates
    selection: Selection


def choose(job: Job[SelectSpec]) -> Choice:
    """Measure every prompt and select; cheap, and the same at every call."""
    settings = job.spec.settings
    rewards = read_rewards(job.inputs, job.spec.reward_models, settings)
    candidates = measure(rewards, settings)
    if job.spec.implicit_model is not None:
        everything = frozenset(prompt.prompt_id for prompt in rewards.prompts)
        gap = implicit_gap(
            rewards,
            _pair(rewards, everything, settings).pairs,
            job.inputs[f"scores-{job.spec.implicit_model}"].rows(SCORES, Score),
        )
        candidates = replace(candidates, implicit_gap=gap)
    selection = select(
        candidates,
        settings.strategy,
        settings.budget,
        seed=settings.seed,
        threshold=settings.threshold,
    )
    return Choice(rewards, candidates, selection)


@contextmanager
def _open_worker(job: Job[SelectSpec]) -> Iterator[Work]:
    settings = job.spec.settings

    def make(_: ShardSpec, folder: Path) -> Accounts:
        choice = choose(job)
        selected = frozenset(choice.selection.prompt_ids.tolist())
        pairing = _pair(choice.rewards, selected, settings)
        write_table(folder / PAIRS, pairing.pairs, Pair)
        table = _variance_table(choice.rewards, choice.candidates, selected, settings)
        write_table(folder / VARIANCE, table, PromptVariance)
        left_out = (len(choice.candidates) - len(selected)) * settings.pairs_per_prompt
        return pairing.accounts + _not_selected(left_out)

    yield make


def _pair(rewards: Rewards, selected: frozenset[str], settings: SelectConfig) -> Pairing:
    return make_pairs(
        [prompt for prompt in rewards.prompts if prompt.prompt_id in selected],
        [each for each in rewards.responses if each.prompt_id in selected],
        [each for each in rewards.combined if each.prompt_id in selected],
        settings.pairs,
        seed=settings.seed,
        pairs_per_prompt=settings.pairs_per_prompt,
        min_margin=settings.min_margin,
        keep_truncated=settings.keep_truncated,
        annotations=[
            Annotation(
                prompt.prompt_id, prompt.chosen_score, prompt.rejected_score, prompt.chosen_aspects
            )
            for prompt in rewards.prompts
            if prompt.chosen_score is not None and prompt.rejected_score is not None
        ],
    )


def _not_selected(num_pairs: int) -> Accounts:
    """In wanted pairs: every training prompt stands for `pairs_per_prompt` of them."""
    rejected = {"not_selected": num_pairs} if num_pairs else {}
    return Accounts(rows_in=num_pairs, rows_out=0, rejected=rejected)


def _variance_table(
    rewards: Rewards, candidates: Candidates, selected: frozenset[str], settings: SelectConfig
) -> list[PromptVariance]:
    stderr = combine_preference_variance_stderr(
        rewards.matrix, scales=rewards.scales, rule=settings.combination
    )
    num_responses = np.isfinite(rewards.scaled).sum(axis=1)
    return [
        PromptVariance(
            prompt.prompt_id,
            int(num_responses[row]),
            _or_none(candidates.pvar, row),
            _or_none(stderr, row),
            _or_none(candidates.reward_gap, row),
            _or_none(candidates.reward_variance, row),
            _or_none(candidates.disagreement, row),
            prompt.prompt_id in selected,
        )
        for row, prompt in enumerate(rewards.prompts)
    ]


def _or_none(values: NDArray[np.floating[Any]] | None, row: int) -> float | None:
    if values is None or not np.isfinite(values[row]):
        return None
    return float(values[row])


def _summarise(job: Job[SelectSpec], artifact: Artifact) -> Summary:
    table = artifact.rows(VARIANCE, PromptVariance)
    pvar = [row.pvar for row in table if row.pvar is not None]
    of_selected = [row.pvar for row in table if row.selected and row.pvar is not None]
    rewards, _, selection = choose(job)
    scales = dict(zip(job.spec.reward_models, rewards.scales, strict=True))
    return {
        "num_prompts": len(table),
        "num_selected": sum(row.selected for row in table),
        "num_pairs": artifact.manifest.accounts.rows_out,
        "pvar_mean": float(np.mean(pvar)) if pvar else None,
        "pvar_mean_selected": float(np.mean(of_selected)) if of_selected else None,
        "cut_value": selection.cut_value,
        "num_tied_at_cut": selection.num_tied_selected + selection.num_tied_left_out,
        "num_without_measure": selection.num_without_measure,
        **{f"left_out_{rule}": count for rule, count in rewards.left_out.items()},
        **{f"reward_scale_{name}": scale for name, scale in scales.items()},
        **{
            f"saturation_share_{name}": saturation_share(model, scale=scales[name])
            for name, model in zip(job.spec.reward_models, rewards.matrix, strict=True)
        },
    }


SELECT = Stage(
    name="select",
    description="Compute preference variance, select prompts, make pairs.",
    version=2,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
