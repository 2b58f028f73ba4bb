"""Stage sample in two rounds: only promising prompts get all responses.

The first round (a few responses for every prompt) and its scores are separate artifacts. This
artifact has the responses of both rounds for the promising prompts and none for the others, so that
later stages need not handle rounds. The others are left out because a PVar of few responses is
noisy: the luckiest of them would displace better prompts, whose PVar has regressed in the second
round.
The choice of promising prompts depends only on the first round (`pvar/adaptive.py`), so that every
worker and every rerun has the same plan.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pvar.adaptive import choose_prompts
from pvar.artifacts import ShardSpec, Summary
from pvar.combine import CombinationRule
from pvar.digest import response_id
from pvar.records import Response
from pvar.row_counts import RowCounts
from pvar.selection import measure_rewards
from pvar.selection.strategy import PVAR
from pvar.selection_config import RewardSettings
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import RejectedRow, by_prompt, write_table
from tasks.stages.reward_columns import read_reward_columns
from tasks.stages.sample import (
    REJECTED,
    RESPONSES,
    SAMPLE,
    SampleSpec,
    WantedPrompts,
    draw_responses,
    open_sampler,
    plan_prompts,
    response_order,
    sampling_format,
    shard_seed,
    summarise_responses,
)

SECOND_ROUND = "second round"
"""Sets the seeds of the second round apart: else it would repeat the first."""


class AdaptiveSampleSpec(SampleSpec):
    """The settings that determine the responses; `num_responses` counts both rounds."""

    first_responses: int
    second_round_share: float
    reward_models: tuple[str, ...]
    """Names of the score inputs by which prompts are chosen."""
    rewards: RewardSettings
    combination: CombinationRule
    """How several reward models are combined into the PVar by which prompts are chosen."""


def promising_prompts(job: Job[AdaptiveSampleSpec]) -> frozenset[str]:
    """Ids of the prompts for the second round, without those rejected in the first round."""
    spec = job.spec
    rewards = read_reward_columns(job.inputs, spec.reward_models, spec.rewards)
    matrix = rewards.combined_by(spec.combination)
    num_answered = int(np.count_nonzero(rewards.num_responses))
    chosen = choose_prompts(
        measure_rewards(matrix)[PVAR.name],
        num_scored=matrix.num_rewards,
        num_sampled=np.where(rewards.num_responses > 0, rewards.num_responses, spec.num_responses),
        max_responses=spec.num_responses,
        num_new=max(1, round(spec.second_round_share * num_answered)),
    )
    return frozenset(
        prompt_id
        for prompt_id, is_chosen in zip(rewards.prompt_ids, chosen, strict=True)
        if is_chosen
    )


@contextmanager
def _open_worker(job: Job[AdaptiveSampleSpec]) -> Iterator[Work]:
    spec, prompts = job.spec, WantedPrompts(job)
    promising = promising_prompts(job)
    first = by_prompt(job.inputs["responses"].rows(RESPONSES, Response))
    rejected_before = job.inputs["responses"].rows(REJECTED, RejectedRow)
    num_more = spec.num_responses - spec.first_responses
    with open_sampler(job) as sampler:

        def sample(shard: ShardSpec, folder: Path) -> RowCounts:
            here = prompts.of(shard)
            again = [prompt for prompt in here if prompt.prompt_id in promising]
            seed = shard_seed(spec.seed, shard.index, SECOND_ROUND)
            more, rejected_again = draw_responses(sampler, again, num_more, seed)
            responses = [response for prompt in again for response in first[prompt.prompt_id]]
            responses += (_numbered_after(response, spec.first_responses) for response in more)
            responses.sort(key=response_order(here))
            write_table(folder / RESPONSES, responses, Response)
            ids = {prompt.prompt_id for prompt in here}
            rejected_first = [row for row in rejected_before if row.row_id in ids]
            write_table(folder / REJECTED, rejected_first + rejected_again, RejectedRow)
            return _row_counts(
                spec,
                len(responses),
                num_prompts=len(here),
                num_again=len(again),
                rejected_first=rejected_first,
                rejected_again=rejected_again,
            )

        yield sample


def _numbered_after(response: Response, first_responses: int) -> Response:
    index = first_responses + response.sample_index
    return response._replace(
        sample_index=index, response_id=response_id(response.prompt_id, index, response.text)
    )


def _row_counts(
    spec: AdaptiveSampleSpec,
    num_responses: int,
    *,
    num_prompts: int,
    num_again: int,
    rejected_first: Sequence[RejectedRow],
    rejected_again: Sequence[RejectedRow],
) -> RowCounts:
    """Count responses: K for a prompt that is not promising or was rejected in the first round.

    A prompt that only the second round rejects keeps its first responses, and the others count.
    """
    wanted = num_prompts * spec.num_responses
    reasons: Counter[str] = Counter()
    for row in rejected_first:
        reasons[row.rule] += spec.num_responses
    for row in rejected_again:
        reasons[row.rule] += spec.num_responses - spec.first_responses
    num_not_promising = num_prompts - num_again - len(rejected_first)
    reasons["not_promising"] += num_not_promising * spec.num_responses
    if missing := wanted - num_responses - reasons.total():
        reasons["not_answered"] += missing
    kept = {rule: count for rule, count in sorted(reasons.items()) if count}
    return RowCounts(rows_in=wanted, rows_out=num_responses, rejected=kept)


def _summarise(job: Job[AdaptiveSampleSpec], artifact: Artifact) -> Summary:
    summary = summarise_responses(job, artifact)
    first = job.inputs["responses"].manifest.row_counts
    in_second_round = sum(
        int(np.count_nonzero(batch.column(0).to_numpy() >= job.spec.first_responses))
        for batch in artifact.batches(RESPONSES, ["sample_index"])
    )
    num_drawn = first.rows_out + in_second_round
    num_answerable = first.rows_out / job.spec.first_responses
    return {
        **summary,
        "num_drawn": num_drawn,
        "drawn_share": num_drawn / (num_answerable * job.spec.num_responses),
    }


ADAPTIVE_SAMPLE = Stage(
    name="sample",
    description=SAMPLE.description,
    version=1,
    image=SAMPLE.image,
    wants_gpu=SAMPLE.wants_gpu,
    plan=plan_prompts,
    open_worker=_open_worker,
    summarise=_summarise,
    unit="prompts",
    number_format=sampling_format,
)
