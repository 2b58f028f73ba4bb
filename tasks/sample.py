"""Stage sample: K responses per prompt from a policy. Also makes the answers that are judged.

Shards are runs of prompts in the order of their ids. The engine's seed follows from (run seed,
shard), so two runs with different seeds differ and a shard does not depend on the others.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from pvar.accounts import Accounts
from pvar.artifacts import ShardSpec, Summary, plan_shards
from pvar.config import SamplerSettings
from pvar.digest import digest
from pvar.errors import InputError
from pvar.ports import SampleRequest
from pvar.records import Prompt, Response, Split
from tasks.artifact import Artifact
from tasks.ingest import PROMPTS
from tasks.stage import Job, Stage, Work
from tasks.tables import RejectedRow, write_table

RESPONSES = "responses.parquet"
REJECTED = "rejected.parquet"


class SampleSpec(BaseModel):
    """What decides the responses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    """Digest of the model."""
    policy_location: str = Field(exclude=True)
    settings: SamplerSettings
    num_responses: int
    seed: int
    split: Split


def shard_seed(seed: int, shard: int) -> int:
    """Seed of one shard: a hash of both, in [0, 2³¹)."""
    return int(digest(["sample", seed, shard], length=8), 16) % 2**31


def _prompts(job: Job[SampleSpec]) -> list[Prompt]:
    rows = job.inputs["prompts"].rows(PROMPTS, Prompt)
    return [prompt for prompt in rows if prompt.split == job.spec.split]


def _plan(job: Job[SampleSpec]) -> tuple[ShardSpec, ...]:
    return plan_shards(len(_prompts(job)), job.runtime.prompts_per_shard)


def _policy_folder(job: Job[SampleSpec]) -> Path | None:
    """The model's folder; None where the engine needs none. A server's tokenizer is wanted here."""
    if job.spec.settings.engine == "fake":
        return None
    return job.ports.model_folder(job.spec.policy_location)


@contextmanager
def _open_worker(job: Job[SampleSpec]) -> Iterator[Work]:
    prompts = _prompts(job)
    sampler = job.ports.sampler(
        job.spec.settings, job.spec.policy, _policy_folder(job), job.runtime
    )

    def sample(shard: ShardSpec, folder: Path) -> Accounts:
        wanted = prompts[shard.start : shard.stop]
        responses, rejections = sampler.sample(
            [SampleRequest(prompt.prompt_id, prompt.messages) for prompt in wanted],
            num_responses=job.spec.num_responses,
            seed=shard_seed(job.spec.seed, shard.index),
        )
        order = {prompt.prompt_id: row for row, prompt in enumerate(wanted)}
        responses.sort(key=lambda each: (order[each.prompt_id], each.sample_index))
        write_table(folder / RESPONSES, responses, Response)
        rejected = [RejectedRow(each.row_id, each.reason, "") for each in rejections]
        write_table(folder / REJECTED, rejected, RejectedRow)
        return _accounts(len(wanted), responses, rejected, job.spec.num_responses)

    try:
        yield sample
    finally:
        sampler.close()


def _accounts(
    num_prompts: int, responses: list[Response], rejected: list[RejectedRow], num_responses: int
) -> Accounts:
    """In responses: a rejected prompt counts K times, under its reason."""
    wanted = num_prompts * num_responses
    reasons: Counter[str] = Counter()
    for row in rejected:
        reasons[row.rule] += num_responses
    if missing := wanted - len(responses) - reasons.total():
        reasons["not_answered"] += missing
    return Accounts(rows_in=wanted, rows_out=len(responses), rejected=dict(sorted(reasons.items())))


def _summarise(job: Job[SampleSpec], artifact: Artifact) -> Summary:
    responses = artifact.rows(RESPONSES, Response)
    if not responses:
        accounts, settings = artifact.manifest.accounts, job.spec.settings
        raise InputError(
            f"{job.keys.root}: none of {accounts.rows_in // job.spec.num_responses} prompts was "
            f"answered ({dict(accounts.rejected)}); prompts may have {settings.max_prompt_tokens} "
            f"tokens and answers {settings.max_new_tokens}, together no more than the model's "
            "context: change max_prompt_tokens or max_new_tokens"
        )
    texts = Counter((each.prompt_id, each.text) for each in responses)
    return {
        "num_responses": len(responses),
        "num_tokens": sum(each.num_tokens for each in responses),
        "mean_length_tokens": fmean(each.num_tokens for each in responses),
        "mean_length_characters": fmean(len(each.text) for each in responses),
        "ended_share": fmean(each.finish_reason == "stop" for each in responses),
        "empty_share": fmean(not each.text.strip() for each in responses),
        "duplicate_share": 1 - len(texts) / len(responses),
    }


SAMPLE = Stage(name="sample", version=1, plan=_plan, open_worker=_open_worker, summarise=_summarise)
