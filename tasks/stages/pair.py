"""Stage pair: which answers of the selected prompts become chosen and rejected."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import chain
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.labelled_pairs import is_labelled
from pvar.pairs import ORIGINAL, RULES, Annotation, Pairing, make_pairs
from pvar.records import Pair, Prompt, Split
from pvar.row_counts import RowCounts
from pvar.selection_config import PairConfig, RewardSettings
from tasks.engine.artifact import Artifact
from tasks.engine.row_reader import RowReader
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import plain_rows, write_table
from tasks.stages.annotate import LABELS
from tasks.stages.ingest import PROMPTS
from tasks.stages.reward_columns import read_reward_columns
from tasks.stages.reward_matrix import RewardedParts, RewardedRows
from tasks.stages.reward_pairs import pair_by_reward
from tasks.stages.select import VARIANCE

PAIRS = "pairs.parquet"
PROMPTS_AT_ONCE = 4096

ADVICE_OF_PAIRS = {
    "too_few_answers": "too few answers of a prompt can be used: see the row counts of stages "
    "sample and score, and raise sample.num_responses",
    "tie": "the two answers are equal, or have equal scores: use other data for rule original, and "
    "for other rules other reward models or a larger sample.num_responses",
    "margin": "lower pair.min_margin",
    "no_annotation": "the prompts have no chosen and rejected: set pair.rule to one by reward, "
    "such as best_worst",
    "missing_reward": "the data has no scores for its pairs: set pair.min_margin to 0",
}
"""What to do if there is no pair, by the most frequent reason."""


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
        unseeded = settings.model_copy(update={"seed": 0, "own_labels": False})
        return PairSpec(settings=unseeded, rewards=None, reward_models=())
    if not RULES[settings.rule].draws:
        settings = settings.model_copy(update={"seed": 0})
    if len(reward_models) == 1:  # the order of one model's rewards does not depend on their scale
        rewards = rewards.model_copy(update={"reward_scale": 1.0})
    return PairSpec(settings=settings, rewards=rewards, reward_models=reward_models)


@contextmanager
def _open_worker(job: Job[PairSpec]) -> Iterator[Work]:
    def make(_: ShardSpec, folder: Path) -> RowCounts:
        asked = job.inputs["labels"].rows(LABELS, Pair) if "labels" in job.inputs else []
        selected = _selected(job.inputs["selection"]) - {pair.prompt_id for pair in asked}
        row_counts = RowCounts(rows_in=len(asked), rows_out=len(asked))

        def by_rule() -> Iterator[Pair]:
            nonlocal row_counts
            for pairing in _pair_in_parts(job, selected):
                row_counts += pairing.row_counts
                yield from pairing.pairs

        asked.sort(key=lambda pair: pair.prompt_id)
        pairs = merge(asked, by_rule(), key=lambda pair: pair.prompt_id) if asked else by_rule()
        write_table(folder / PAIRS, pairs, Pair)
        return row_counts

    yield make


def _selected(selection: Artifact) -> set[str]:
    return {
        prompt_id
        for batch in selection.batches(VARIANCE, ["prompt_id", "selected"])
        for prompt_id, is_selected in plain_rows(batch)
        if is_selected
    }


def _pair_in_parts(job: Job[PairSpec], selected: Collection[str]) -> Iterator[Pairing]:
    """The pairs of these prompts by the rule, in the order of the prompts; one part at least.

    The texts of one part are in memory at a time.
    """
    spec = job.spec
    reader = RowReader(job.inputs["prompts"], PROMPTS, Prompt)
    places = chain.from_iterable(
        map(plain_rows, job.inputs["prompts"].batches(PROMPTS, ["prompt_id", "split"]))
    )
    rows = [
        row
        for row, (prompt_id, split) in enumerate(places)
        if split == spec.split and prompt_id in selected
    ]
    rewarded_parts = None
    if spec.rewards is not None:
        columns = read_reward_columns(job.inputs, spec.reward_models, spec.rewards, spec.split)
        rewarded_parts = RewardedParts(columns, job.inputs["responses"])
    for start in range(0, max(len(rows), 1), PROMPTS_AT_ONCE):
        prompts = reader.take(rows[start : start + PROMPTS_AT_ONCE])
        if rewarded_parts is None or spec.rewards is None:
            yield original_pairs(prompts, spec.settings)
        else:
            yield pairs_of(
                prompts,
                rewarded_parts.of(prompts),
                spec.settings,
                keep_truncated=spec.rewards.keep_truncated,
            )


def pairs_of(
    prompts: Sequence[Prompt], rewards: RewardedRows, settings: PairConfig, *, keep_truncated: bool
) -> Pairing:
    """The pairs of these prompts: by reward, or as annotated where that is wanted."""
    labelled = [each for each in prompts if settings.own_labels and is_labelled(each)]
    others = {each.prompt_id for each in prompts} - {each.prompt_id for each in labelled}
    sampled = pair_by_reward(rewards, others, settings, keep_truncated=keep_truncated)
    if not labelled:
        return sampled
    # A bound in units of reward says nothing about labels, and a prompt has one of them.
    of_labels = settings.model_copy(
        update={"rule": ORIGINAL, "min_margin": 0, "pairs_per_prompt": 1}
    )
    annotated = original_pairs(labelled, of_labels)
    return Pairing(
        sorted([*annotated.pairs, *sampled.pairs], key=lambda pair: pair.prompt_id),
        annotated.row_counts + sampled.row_counts,
        sampled.responses,
    )


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


def why_no_pairs(counts: RowCounts) -> str:
    """What to do if none of these rows became a pair."""
    if not counts.rows_in:
        return "no prompt was selected; see stage select, and select.budget or select.threshold"
    most_frequent = max(counts.rejected, key=counts.rejected.__getitem__)
    return ADVICE_OF_PAIRS.get(most_frequent, "use other data, or another pair.rule")


def _summarise(_: Job[PairSpec], artifact: Artifact) -> Summary:
    prompt_ids, margins = set[str](), list[float]()
    num_pairs = num_labelled = 0
    for batch in artifact.batches(PAIRS, ["prompt_id", "chosen_reward", "rejected_reward"]):
        for prompt_id, chosen, rejected in plain_rows(batch):
            prompt_ids.add(prompt_id)
            num_pairs += 1
            num_labelled += chosen is None
            if chosen is not None and rejected is not None:
                margins.append(chosen - rejected)
    return {
        "num_pairs": num_pairs,
        "num_prompts": len(prompt_ids),
        "num_labelled": num_labelled,
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
