"""Stage divergence: KL divergence of the trained model from the starting policy, on its answers.

The estimate and what it assumes of the answers are in `pvar/evaluation/divergence_estimate.py`. The
computation is that of the reference's log-probabilities (`tasks/training/logps.py`), for both
models, with the number format of training. One model is loaded after the other.

Answers are kept as text, so their tokens are those of the text, encoded again. Where these are not
the tokens that were generated (a text has several encodings, and white space at its ends is not
kept), the log-ratio is of another sequence of tokens; the figure `reencoded_share` says how often
their number differs. The engine that sampled rounds differently from this computation, which also
is not corrected.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.chat import answer_token_ids, end_token_ids, prompt_token_ids
from pvar.evaluation.divergence_estimate import AnswerLogps, estimate_divergence
from pvar.number_format import NumberFormat
from pvar.records import Prompt, Response
from pvar.references import ModelReference
from pvar.row_counts import RowCounts
from pvar.train_config import TrainConfig
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import RejectedRow, write_table
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES
from tasks.training.logps import PromptAnswer, answer_logps
from tasks.training.model import load_frozen
from tasks.training.reference import counting_answers

NOT_FINITE = "not_finite"
"""Rule for an answer that one of the models never gives."""
ANSWER_LOGPS = "answer_logps.parquet"
REJECTED = "rejected.parquet"


class DivergenceSpec(BaseModel):
    """The settings that determine the divergence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: ModelReference
    """The model whose answers are read."""
    reference: ModelReference
    """The model from which it diverged."""
    dtype: Literal["auto", "float32", "bfloat16"]
    confidence: float


class _EncodedAnswer(NamedTuple):
    prompt_id: str
    ids: PromptAnswer


def _number_format(job: Job[DivergenceSpec]) -> NumberFormat:
    return job.ports.number_format(job.spec.dtype, learns=True)


def _answers(job: Job[DivergenceSpec]) -> list[Response]:
    return job.inputs["answers"].rows(RESPONSES, Response)


@contextmanager
def _open_worker(job: Job[DivergenceSpec]) -> Iterator[Work]:
    def compute(_: ShardSpec, folder: Path) -> RowCounts:
        answers = _answers(job)
        given = [answer for answer in answers if answer.finish_reason != "error"]
        rejected = [
            RejectedRow(answer.prompt_id, "no_answer", "")
            for answer in answers
            if answer.finish_reason == "error"
        ]
        encoded = _encode(job, given)
        policy, reference = (
            _logps(job, model, encoded) if encoded else {}
            for model in (job.spec.policy, job.spec.reference)
        )
        rows = []
        for prompt_id, ids in encoded:
            row = AnswerLogps(prompt_id, len(ids.answer), policy[ids], reference[ids])
            if math.isfinite(row.logp_policy) and math.isfinite(row.logp_reference):
                rows.append(row)
            else:
                detail = f"log-probabilities {row.logp_policy} and {row.logp_reference}"
                rejected.append(RejectedRow(prompt_id, NOT_FINITE, detail))
        return _write(folder, rows, rejected)

    yield compute


def _encode(job: Job[DivergenceSpec], answers: Sequence[Response]) -> list[_EncodedAnswer]:
    """Token ids by the policy's tokenizer, which a training leaves as it is."""
    from transformers import AutoTokenizer

    folder = job.ports.model_folder(job.spec.policy)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    end = end_token_ids(tokenizer)
    prompts = {row.prompt_id: row for row in job.inputs["prompts"].rows(PROMPTS, Prompt)}
    return [
        _EncodedAnswer(
            answer.prompt_id,
            PromptAnswer(
                tuple(prompt_token_ids(tokenizer, prompts[answer.prompt_id].messages)),
                tuple(
                    answer_token_ids(
                        tokenizer, answer.text, () if answer.finish_reason == "length" else end
                    )
                ),
            ),
        )
        for answer in answers
    ]


def _logps(
    job: Job[DivergenceSpec], model: str, answers: Sequence[_EncodedAnswer]
) -> dict[PromptAnswer, float]:
    """Log-probabilities under one model, which is freed afterwards."""
    precision = job.number_format
    settings = TrainConfig.model_validate({"precision": precision})
    loaded = load_frozen(job.ports.model_folder(model), settings)
    rows = [answer.ids for answer in answers]
    job.progress.begin(total=len(set(rows)), unit="answers")
    with counting_answers(loaded, job.progress):
        return answer_logps(loaded, rows, autocast=precision == "bfloat16")


def _write(folder: Path, rows: Sequence[AnswerLogps], rejected: Sequence[RejectedRow]) -> RowCounts:
    write_table(folder / ANSWER_LOGPS, rows, AnswerLogps)
    write_table(folder / REJECTED, rejected, RejectedRow)
    return RowCounts(
        rows_in=len(rows) + len(rejected),
        rows_out=len(rows),
        rejected=dict(sorted(Counter(row.rule for row in rejected).items())),
    )


def _summarise(job: Job[DivergenceSpec], artifact: Artifact) -> Summary:
    rows = artifact.rows(ANSWER_LOGPS, AnswerLogps)
    generated = {answer.prompt_id: answer.num_tokens for answer in _answers(job)}
    differ = [row.num_tokens != generated[row.prompt_id] for row in rows]
    return {
        **estimate_divergence(rows, confidence=job.spec.confidence)._asdict(),
        "num_answers": len(rows),
        "mean_length_tokens": fmean(row.num_tokens for row in rows) if rows else None,
        "reencoded_share": fmean(differ) if rows else None,
    }


DIVERGENCE = Stage(
    name="divergence",
    description="Estimate the trained model's KL divergence from the starting policy.",
    version=1,
    image="train",
    wants_gpu=True,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
    number_format=_number_format,
)
