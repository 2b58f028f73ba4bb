"""Stage pair: which answers of the selected prompts become chosen and rejected."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.pairs import ORIGINAL, RULES, Annotation, Pairing, make_pairs
from pvar.records import Pair, Prompt, Split
from pvar.row_counts import RowCounts
from pvar.selection_config import PairConfig, RewardSettings
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import PromptVariance, write_table
from tasks.stages.ingest import training_prompts
from tasks.stages.reward_matrix import read_rewards
from tasks.stages.reward_pairs import pair_by_reward
from tasks.stages.select import VARIANCE

PAIRS = "pairs.parquet"


class PairSpec(BaseModel):
    """The settings that determine the pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: PairConfig
    rewards: RewardSettings | None
    """Which answers are used; None for rule `original`, which uses none."""
    reward_models: tuple[str, ...]
    """Names of the score inputs by which answers are compared, in order."""
    split: Split = "train"
    """The prompts of which pairs are made: `eval` for the held-out pairs (`evaluate.margins`)."""


def pair_spec(
    settings: PairConfig, rewards: RewardSettings, reward_models: tuple[str, ...]
) -> PairSpec:
    """The settings without those that the rule does not use, so that runs share the result.

    The models are also left out: `PairSpec.reward_models` names them.
    """
    settings = settings.model_copy(update={"models": None})
    if settings.rule == ORIGINAL:
        unseeded = settings.model_copy(update={"seed": 0})
        return PairSpec(settings=unseeded, rewards=None, reward_models=())
    if not RULES[settings.rule].draws:
        settings = settings.model_copy(update={"seed": 0})
    if len(reward_models) == 1:  # the order of one model's rewards does not depend on their scale
        rewards = rewards.model_copy(update={"reward_scale": 1.0})
    return PairSpec(settings=settings, rewards=rewards, reward_models=reward_models)


@contextmanager
def _open_worker(job: Job[PairSpec]) -> Iterator[Work]:
    def make(_: ShardSpec, folder: Path) -> RowCounts:
        table = job.inputs["selection"].rows(VARIANCE, PromptVariance)
        pairing = _pair(job, frozenset(row.prompt_id for row in table if row.selected))
        write_table(folder / PAIRS, pairing.pairs, Pair)
        return pairing.row_counts

    yield make


def _pair(job: Job[PairSpec], selected: frozenset[str]) -> Pairing:
    spec = job.spec
    if spec.rewards is not None:
        rewards = read_rewards(job.inputs, spec.reward_models, spec.rewards, spec.split)
        return pair_by_reward(
            rewards, selected, spec.settings, keep_truncated=spec.rewards.keep_truncated
        )
    prompts = training_prompts(job.inputs["prompts"])
    return original_pairs([each for each in prompts if each.prompt_id in selected], spec.settings)


def original_pairs(prompts: Sequence[Prompt], settings: PairConfig) -> Pairing:
    """The preferences annotated in the data (rule `original`)."""
    annotations = [
        Annotation(
            prompt.prompt_id, prompt.chosen_score, prompt.rejected_score, prompt.chosen_aspects
        )
        for prompt in prompts
        if prompt.chosen_score is not None and prompt.rejected_score is not None
    ]
    return make_pairs(
        prompts,
        (),
        (),
        settings.rule,
        seed=settings.seed,
        pairs_per_prompt=settings.pairs_per_prompt,
        min_margin=settings.min_margin,
        annotations=annotations,
    )


def _summarise(_: Job[PairSpec], artifact: Artifact) -> Summary:
    pairs = artifact.rows(PAIRS, Pair)
    margins = [
        pair.chosen_reward - pair.rejected_reward
        for pair in pairs
        if pair.chosen_reward is not None and pair.rejected_reward is not None
    ]
    return {
        "num_pairs": len(pairs),
        "num_prompts": len({pair.prompt_id for pair in pairs}),
        "margin_mean": fmean(margins) if margins else None,
    }


PAIR = Stage(
    name="pair",
    description="Make training pairs from the selected prompts.",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
