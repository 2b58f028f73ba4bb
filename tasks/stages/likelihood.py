"""Stage likelihood: log-probabilities of the labelled answers of held-out prompts, under a model.

One artifact per model: it depends on the prompts, the model and the number format only, so that the
champion's is used again by every later run. What is made of it is in
`benchmark_label_agreement.py`. The computation is that of the reference's log-probabilities
(`tasks/training/logps.py`), with the number format of training, because differences of two models
are taken.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary, plan_shards
from pvar.benchmark_config import LabelAgreementBenchmark
from pvar.evaluation.preference_accuracy import LabelLogps, likelihood_accuracy
from pvar.labelled_pairs import held_out_pairs
from pvar.number_format import NumberFormat
from pvar.records import Pair, Prompt
from pvar.references import ModelReference
from pvar.row_counts import RowCounts
from pvar.train_config import TrainConfig
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import RejectedRow, TokenPair, write_table
from tasks.stages.ingest import PROMPTS
from tasks.training.logps import PromptAnswer, answer_logps
from tasks.training.model import load_frozen
from tasks.training.token_rows import encode_pairs

LABEL_LOGPS = "label_logps.parquet"
REJECTED = "rejected.parquet"


class LikelihoodSpec(BaseModel):
    """The settings that determine the log-probabilities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: ModelReference
    """The model that is measured."""
    max_length_tokens: int
    """Longer pairs have no log-probabilities."""
    dtype: Literal["auto", "float32", "bfloat16"]


def likelihood_spec(benchmark: LabelAgreementBenchmark, policy: str) -> LikelihoodSpec:
    """The settings for one of the models of a benchmark."""
    return LikelihoodSpec(
        policy=policy, max_length_tokens=benchmark.max_length_tokens, dtype=benchmark.dtype
    )


def _prompts(job: Job[LikelihoodSpec]) -> list[Prompt]:
    return job.inputs["prompts"].rows(PROMPTS, Prompt)


def _plan(job: Job[LikelihoodSpec]) -> tuple[ShardSpec, ...]:
    pairs_per_shard = max(1, job.runtime.responses_per_shard // 2)
    return plan_shards(len(held_out_pairs(_prompts(job))), pairs_per_shard)


def _number_format(job: Job[LikelihoodSpec]) -> NumberFormat:
    return job.ports.number_format(job.spec.dtype, learns=True)


@contextmanager
def _open_worker(job: Job[LikelihoodSpec]) -> Iterator[Work]:
    prompts = _prompts(job)
    pairs, sources = held_out_pairs(prompts), {row.prompt_id: row.source for row in prompts}
    if not pairs:  # no model is loaded for nothing
        yield lambda _, folder: _write(folder, [], [])
        return
    from transformers import AutoTokenizer

    folder = job.ports.model_folder(job.spec.policy)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = load_frozen(folder, TrainConfig.model_validate({"precision": job.number_format}))

    def compute(shard: ShardSpec, folder: Path) -> RowCounts:
        here: list[Pair] = pairs[shard.start : shard.stop]
        encoded = encode_pairs(here, (), tokenizer, job.spec.max_length_tokens)
        answers = [row for pair in encoded.pairs for row in _answers(pair)]
        logps = answer_logps(model, answers, autocast=job.number_format == "bfloat16")
        rows, rejected = [], list(encoded.rejected)
        for pair in encoded.pairs:
            chosen, dispreferred = (logps[row] for row in _answers(pair))
            if math.isfinite(chosen) and math.isfinite(dispreferred):
                lengths = len(pair.chosen_ids), len(pair.rejected_ids)
                source = sources[pair.prompt_id]
                rows.append(LabelLogps(pair.prompt_id, source, chosen, dispreferred, *lengths))
            else:
                detail = f"log-probabilities {chosen} and {dispreferred}"
                rejected.append(RejectedRow(pair.prompt_id, "not_finite", detail))
        return _write(folder, rows, rejected)

    yield compute


def _answers(pair: TokenPair) -> tuple[PromptAnswer, PromptAnswer]:
    """Chosen and rejected answer."""
    prompt = tuple(pair.prompt_ids)
    return (
        PromptAnswer(prompt, tuple(pair.chosen_ids)),
        PromptAnswer(prompt, tuple(pair.rejected_ids)),
    )


def _write(folder: Path, rows: Sequence[LabelLogps], rejected: Sequence[RejectedRow]) -> RowCounts:
    write_table(folder / LABEL_LOGPS, rows, LabelLogps)
    write_table(folder / REJECTED, rejected, RejectedRow)
    return RowCounts(
        rows_in=len(rows) + len(rejected),
        rows_out=len(rows),
        rejected=dict(sorted(Counter(row.rule for row in rejected).items())),
    )


def _summarise(_: Job[LikelihoodSpec], artifact: Artifact) -> Summary:
    rows = artifact.rows(LABEL_LOGPS, LabelLogps)
    accuracy = likelihood_accuracy(rows)
    return {
        "num_pairs": len(rows),
        "likelihood_accuracy": accuracy.likelihood,
        "per_token_accuracy": accuracy.per_token,
        "chosen_logp_mean": fmean(row.chosen for row in rows) if rows else None,
        "rejected_logp_mean": fmean(row.rejected for row in rows) if rows else None,
    }


LIKELIHOOD = Stage(
    name="likelihood",
    description="Compute a model's log-probabilities of labelled held-out answers.",
    version=1,
    image="train",
    wants_gpu=True,
    plan=_plan,
    open_worker=_open_worker,
    summarise=_summarise,
    unit="pairs",
    number_format=_number_format,
)
