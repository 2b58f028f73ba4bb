"""Stage select: preference variance of each training prompt, and which prompts to train on.

Prompts that the optional input `exclusions` (stage exclude) names are an exam's: they are left out
before anything is measured, so they are no candidates, and a budget that is a fraction does not
count them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.combine import combine_preference_variance_stderr
from pvar.errors import InputError
from pvar.records import Score, Split
from pvar.row_counts import RowCounts
from pvar.selection import (
    STRATEGIES,
    Candidates,
    RewardMatrix,
    Selection,
    measure_gaps,
    select,
)
from pvar.selection.strategy import PVAR, FloatArray
from pvar.selection_config import PairConfig, SelectConfig
from pvar.variance import saturation_share
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import MeasuredPrompt, PromptVariance, plain_values, write_table
from tasks.stages.gap_of_pairs import implicit_gaps
from tasks.stages.reward_columns import RewardColumns, read_reward_columns
from tasks.stages.reward_matrix import read_rewards, to_candidates
from tasks.stages.reward_pairs import pair_by_reward
from tasks.stages.score import SCORES

VARIANCE = "variance.parquet"
MEASURED = "measures.parquet"


class ImplicitGapSpec(BaseModel):
    """How implicit gaps are measured: on the pairs that would be made from every prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reward_model: str
    """Name of the score input from which the gap is computed."""
    pairs: PairConfig
    further_models: tuple[str, ...] = ()
    """Names of further score inputs, for strategies that compare the gaps of several policies."""
    pair_models: tuple[str, ...] | None = None
    """Names of the score inputs by which answers are compared, if they are not those of PVar."""


class SelectSpec(BaseModel):
    """The settings that determine the selection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: SelectConfig
    reward_models: tuple[str, ...]
    """Names of the score inputs from which PVar is computed, in order."""
    implicit_gap: ImplicitGapSpec | None = None
    """None for strategies that do not use implicit gaps."""
    split: Split = "train"
    """The prompts that are measured: `eval` for the held-out pairs (`evaluate.margins`)."""


def select_settings(settings: SelectConfig) -> SelectConfig:
    """The settings without an unused seed, so that runs share the result.

    The models are also left out: `SelectSpec.reward_models` names them.
    """
    seed = settings.seed if STRATEGIES[settings.strategy].draws else 0
    return settings.model_copy(update={"seed": seed, "models": None})


class Choice(NamedTuple):
    """The selected prompts and their measure."""

    rewards: RewardColumns
    matrix: RewardMatrix
    candidates: Candidates
    selection: Selection


def choose(job: Job[SelectSpec]) -> Choice:
    """Measure every prompt and select. This is cheap and deterministic.

    Raises InputError if the exams exclude every training prompt.
    """
    settings = job.spec.settings
    rewards = read_reward_columns(job.inputs, job.spec.reward_models, settings, job.spec.split)
    if rewards.num_excluded and not rewards.prompt_ids:
        raise InputError(
            f"{job.keys.root}: all {rewards.num_excluded} training prompts are prompts of an exam, "
            f"as {job.inputs['exclusions'].keys.root} says; give another source, or remove the "
            "benchmark whose prompts these are"
        )
    matrix = rewards.combined_by(settings.combination)
    candidates = to_candidates(rewards, matrix)
    if job.spec.implicit_gap is not None:
        gaps = _implicit_gaps(job, job.spec.implicit_gap)
        measures = {**candidates.measures, **measure_gaps(gaps)}
        candidates = replace(candidates, measures=measures)
    selection = select(
        candidates,
        settings.strategy,
        settings.budget,
        seed=settings.seed,
        threshold=settings.threshold,
    )
    return Choice(rewards, matrix, candidates, selection)


def _implicit_gaps(job: Job[SelectSpec], spec: ImplicitGapSpec) -> FloatArray:
    if spec.pair_models is None:
        models, split = job.spec.reward_models, job.spec.split
        rewards = read_rewards(job.inputs, models, job.spec.settings, split)
    else:
        rewards = read_rewards(job.inputs, spec.pair_models, job.spec.settings)
    everything = frozenset(prompt.prompt_id for prompt in rewards.prompts)
    pairing = pair_by_reward(
        rewards.rows, everything, spec.pairs, keep_truncated=job.spec.settings.keep_truncated
    )
    scores = [
        job.inputs[f"scores-{name}"].rows(SCORES, Score)
        for name in (spec.reward_model, *spec.further_models)
    ]
    return implicit_gaps(rewards, pairing.pairs, scores)


@contextmanager
def _open_worker(job: Job[SelectSpec]) -> Iterator[Work]:
    def make(_: ShardSpec, folder: Path) -> RowCounts:
        choice = choose(job)
        write_table(folder / VARIANCE, _variances(choice, job.spec.settings), PromptVariance)
        write_table(folder / MEASURED, _measured(choice.candidates), MeasuredPrompt)
        return choice.selection.row_counts + _excluded(choice.rewards.num_excluded or 0)

    yield make


def _excluded(num_prompts: int) -> RowCounts:
    return RowCounts(rows_in=num_prompts, rejected={"exam": num_prompts} if num_prompts else {})


def _variances(choice: Choice, settings: SelectConfig) -> Iterator[PromptVariance]:
    stderr = combine_preference_variance_stderr(
        choice.rewards.matrix, scales=choice.rewards.scales, rule=settings.combination
    )
    selected = frozenset(choice.selection.prompt_ids.tolist())
    pvar, num_responses = choice.candidates.measures[PVAR.name], choice.matrix.num_rewards
    for row, prompt_id in enumerate(choice.rewards.prompt_ids):
        yield PromptVariance(
            prompt_id,
            int(num_responses[row]),
            _or_none(pvar[row]),
            _or_none(stderr[row]),
            prompt_id in selected,
        )


def _measured(candidates: Candidates) -> Iterator[MeasuredPrompt]:
    """All measures except PVar. A prompt without a measure has no row."""
    for name, values in candidates.measures.items():
        if name != PVAR.name:
            for row in np.flatnonzero(np.isfinite(values)):
                prompt_id = str(candidates.prompt_ids[row])
                yield MeasuredPrompt(prompt_id, name, float(values[row]))


def _or_none(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: FloatArray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _summarise(job: Job[SelectSpec], artifact: Artifact) -> Summary:
    batches = list(artifact.batches(VARIANCE, ["pvar", "selected"]))
    parts = [batch.column(0).to_numpy(zero_copy_only=False) for batch in batches]
    pvar = np.concatenate([np.empty(0), *parts])
    is_selected = np.array([each for batch in batches for each in plain_values(batch, 1)], np.bool_)
    has_pvar = ~np.isnan(pvar)
    choice = choose(job)
    rewards, selection = choice.rewards, choice.selection
    scales = dict(zip(job.spec.reward_models, rewards.scales, strict=True))
    return {
        "num_prompts": len(pvar),
        "num_selected": int(np.count_nonzero(is_selected)),
        "pvar_mean": _mean(pvar[has_pvar]),
        "pvar_mean_selected": _mean(pvar[has_pvar & is_selected]),
        "measure": selection.measure,
        "cut_value": selection.cut_value,
        "num_tied_at_cut": selection.num_tied_selected + selection.num_tied_left_out,
        "num_without_measure": selection.num_without_measure,
        **({} if rewards.num_excluded is None else {"left_out_exam": rewards.num_excluded}),
        **{f"left_out_{rule}": count for rule, count in rewards.left_out.items()},
        **{f"reward_scale_{name}": scale for name, scale in scales.items()},
        **{
            f"saturation_share_{name}": saturation_share(model, scale=scales[name])
            for name, model in zip(job.spec.reward_models, rewards.matrix, strict=True)
        },
    }


SELECT = Stage(
    name="select",
    description="Compute preference variance and select the prompts to train on.",
    version=3,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
