"""Stage sample: K responses per prompt from a policy. Also generates the answers for evaluation.

Shards are ranges of prompts in the order of their ids. The engine's seed is derived from the run's
seed and the shard, so that two runs with different seeds differ and shards are independent.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary, plan_shards
from pvar.digest import digest
from pvar.errors import InputError
from pvar.number_format import NumberFormat
from pvar.ports import Sampler, SampleRequest
from pvar.records import Prompt, Response, Split
from pvar.references import ModelReference, Pinned
from pvar.row_counts import RowCounts
from pvar.sampler_config import SamplerSettings
from tasks.engine.artifact import Artifact
from tasks.engine.row_reader import RowReader
from tasks.engine.stage import Job, Stage, Work, discard_shards
from tasks.engine.tables import RejectedRow, plain_rows, plain_values, write_table
from tasks.stages.ingest import PROMPTS

RESPONSES = "responses.parquet"
REJECTED = "rejected.parquet"


class SampleSpec(BaseModel):
    """The settings that determine the responses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: ModelReference
    settings: SamplerSettings
    num_responses: int
    seed: int
    split: Split


AnySampleSpec = TypeVar("AnySampleSpec", bound=SampleSpec)


def shard_seed(seed: int, shard: int, *sampling_round: str) -> int:
    """Seed of one shard: a hash of the arguments, in [0, 2³¹)."""
    return int(digest(["sample", seed, shard, *sampling_round], length=8), 16) % 2**31


class WantedPrompts:
    """The prompts of the split, in the order of their ids; read when a shard needs them."""

    def __init__(self, job: Job[AnySampleSpec]) -> None:
        prompts = job.inputs["prompts"]
        self._reader = RowReader(prompts, PROMPTS, Prompt)
        splits = map(plain_values, prompts.batches(PROMPTS, ["split"]))
        self._rows = np.flatnonzero(np.array(list(chain(*splits)), str) == job.spec.split)

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, shard: ShardSpec) -> list[Prompt]:
        """The prompts of a shard."""
        return self._reader.take(self._rows[shard.start : shard.stop].tolist())


def plan_prompts(job: Job[AnySampleSpec]) -> tuple[ShardSpec, ...]:
    """Shards of prompts."""
    prompts_per_shard = max(1, job.runtime.sampled_responses_per_shard // job.spec.num_responses)
    return plan_shards(len(WantedPrompts(job)), prompts_per_shard)


def sampling_format(job: Job[AnySampleSpec]) -> NumberFormat | None:
    """Number format of the policy; None for a server or a fake."""
    match job.spec.settings.engine:
        case "transformers" | "vllm":
            return job.ports.number_format(job.spec.settings.dtype, learns=False)
        case "openai" | "fake":
            return None


@contextmanager
def open_sampler(job: Job[AnySampleSpec]) -> Iterator[Sampler]:
    """The policy, until the block ends."""
    spec = job.spec
    folder = None  # a fake needs none; of a policy on a server the tokenizer is wanted here
    if spec.settings.engine != "fake":
        folder = job.ports.model_folder(spec.policy)
    settings = spec.settings.model_copy(update={"dtype": job.number_format or "auto"})
    sampler = job.ports.sampler(settings, Pinned.parse(spec.policy).digest, folder, job.runtime)
    try:
        yield sampler
    finally:
        sampler.close()


def draw_responses(
    sampler: Sampler, prompts: Sequence[Prompt], num_responses: int, seed: int
) -> tuple[list[Response], list[RejectedRow]]:
    """Responses and rejected prompts. Without prompts, the model is not called."""
    if not prompts:
        return [], []
    responses, rejections = sampler.sample(
        [SampleRequest(prompt.prompt_id, prompt.messages) for prompt in prompts],
        num_responses=num_responses,
        seed=seed,
    )
    return responses, [
        RejectedRow(rejection.row_id, rejection.reason, "") for rejection in rejections
    ]


def response_order(prompts: Sequence[Prompt]) -> Callable[[Response], tuple[int, int]]:
    """Sort key: by prompt, then by sample index."""
    order = {prompt.prompt_id: row for row, prompt in enumerate(prompts)}
    return lambda each: (order[each.prompt_id], each.sample_index)


@contextmanager
def _open_worker(job: Job[SampleSpec]) -> Iterator[Work]:
    prompts, num_responses = WantedPrompts(job), job.spec.num_responses
    with open_sampler(job) as sampler:

        def sample(shard: ShardSpec, folder: Path) -> RowCounts:
            here = prompts.of(shard)
            seed = shard_seed(job.spec.seed, shard.index)
            responses, rejected = draw_responses(sampler, here, num_responses, seed)
            responses.sort(key=response_order(here))
            write_table(folder / RESPONSES, responses, Response)
            write_table(folder / REJECTED, rejected, RejectedRow)
            return _row_counts(len(here), responses, rejected, num_responses)

        yield sample


def _row_counts(
    num_prompts: int, responses: list[Response], rejected: list[RejectedRow], num_responses: int
) -> RowCounts:
    """Count responses: a rejected prompt counts K times, under its reason."""
    wanted = num_prompts * num_responses
    reasons: Counter[str] = Counter()
    for row in rejected:
        reasons[row.rule] += num_responses
    if missing := wanted - len(responses) - reasons.total():
        reasons["not_answered"] += missing
    return RowCounts(
        rows_in=wanted, rows_out=len(responses), rejected=dict(sorted(reasons.items()))
    )


def summarise_responses(job: Job[AnySampleSpec], artifact: Artifact) -> Summary:
    """Counts and lengths; InputError if no prompt was answered."""
    if not len(RowReader(artifact, RESPONSES, Response)):
        discard_shards(artifact)
        row_counts = artifact.manifest.row_counts
        raise InputError(
            f"{job.keys.root}: none of {row_counts.rows_in // job.spec.num_responses} prompts was "
            f"answered ({row_counts.rejected}): {_what_to_do(job.spec.settings, row_counts)}"
        )
    return response_figures(artifact)


def response_figures(artifact: Artifact) -> Summary:
    """Number and lengths of one or more responses, of which those of a prompt follow one another.

    One part of the table is in memory at a time.
    """
    num_responses = num_tokens = num_characters = num_ended = num_empty = num_texts = 0
    prompt, texts = None, set[str]()
    for batch in artifact.batches(RESPONSES, ["prompt_id", "text", "num_tokens", "finish_reason"]):
        for prompt_id, text, tokens, reason in plain_rows(batch):
            if prompt_id != prompt:
                num_texts += len(texts)
                prompt, texts = prompt_id, set()
            texts.add(text)
            num_responses += 1
            num_tokens += tokens
            num_characters += len(text)
            num_ended += reason == "stop"
            num_empty += not text.strip()
    num_texts += len(texts)
    return {
        "num_responses": num_responses,
        "num_tokens": num_tokens,
        "mean_length_tokens": num_tokens / num_responses,
        "mean_length_characters": num_characters / num_responses,
        "ended_share": num_ended / num_responses,
        "empty_share": num_empty / num_responses,
        "duplicate_share": 1 - num_texts / num_responses,
    }


def _what_to_do(settings: SamplerSettings, row_counts: RowCounts) -> str:
    """Advice for the most frequent reason."""
    reason = max(row_counts.rejected, key=row_counts.rejected.__getitem__, default="no_prompts")
    prompt_tokens, new_tokens = settings.max_prompt_tokens, settings.max_new_tokens
    match reason:
        case "prompt_too_long":
            return (
                f"max_prompt_tokens is {prompt_tokens} and max_new_tokens {new_tokens}; together "
                "they must fit the model's context: raise the first or lower the second"
            )
        case "refused_by_chat_template":
            return (
                "the policy's chat template does not accept these messages (some accept no system "
                "message); change the prompts or the policy"
            )
        case "http_400" | "http_413" | "http_422":
            return (
                "the policy's server refuses them, with the reason in the log above; if its "
                f"context is too short, it must hold {prompt_tokens + new_tokens} tokens "
                "(--max-model-len of vLLM)"
            )
        case refusal if refusal.startswith("http_"):
            return "the policy's server refuses them, with the reason in the log above"
        case "no_prompts":
            return "there is no prompt to answer; see the row counts of stage ingest"
        case _:
            return "see the engine's log above, and run again"


SAMPLE = Stage(
    name="sample",
    description="Answer prompts with a policy: for training and for evaluation.",
    version=1,
    image="sample",
    wants_gpu=True,
    plan=plan_prompts,
    open_worker=_open_worker,
    summarise=summarise_responses,
    unit="prompts",
    number_format=sampling_format,
)
