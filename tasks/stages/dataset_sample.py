"""Stage sample without a policy: the responses are the answers that the data holds.

Their tokens are counted with the policy's tokenizer, with the end of an answer, as those of sampled
responses. They count as finished. The data's scores are kept beside them, for the reward model of
kind `dataset`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pvar.answer_rows import PoolAnswer
from pvar.artifacts import ShardSpec, Summary, plan_shards
from pvar.chat import answer_token_ids, end_token_ids
from pvar.digest import response_id
from pvar.ports import ScoreRequest
from pvar.records import Response, Score
from pvar.references import ModelReference
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.row_reader import RowReader
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.ingest import ANSWERS
from tasks.stages.sample import RESPONSES, SAMPLE, response_figures

GIVEN_SCORES = "given_scores.parquet"


class DatasetSampleSpec(BaseModel):
    """The settings that determine the responses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: ModelReference
    """Its tokenizer counts the tokens."""


def _answers(job: Job[DatasetSampleSpec]) -> RowReader[PoolAnswer]:
    return RowReader(job.inputs["prompts"], ANSWERS, PoolAnswer)


def _plan(job: Job[DatasetSampleSpec]) -> tuple[ShardSpec, ...]:
    return plan_shards(len(_answers(job)), job.runtime.responses_per_shard)


@contextmanager
def _open_worker(job: Job[DatasetSampleSpec]) -> Iterator[Work]:
    from transformers import AutoTokenizer

    answers = _answers(job)
    folder = job.ports.model_folder(job.spec.policy)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    end = end_token_ids(tokenizer)

    def take(shard: ShardSpec, folder: Path) -> RowCounts:
        responses, scores = [], []
        for answer in answers.between(shard.start, shard.stop):
            name = response_id(answer.prompt_id, answer.answer_index, answer.text)
            num_tokens = len(answer_token_ids(tokenizer, answer.text, end))
            responses.append(
                Response(
                    answer.prompt_id, name, answer.answer_index, answer.text, num_tokens, "stop"
                )
            )
            scores.append(Score(answer.prompt_id, name, answer.score, answer.reason))
        write_table(folder / RESPONSES, responses, Response)
        write_table(folder / GIVEN_SCORES, scores, Score)
        return RowCounts(rows_in=len(responses), rows_out=len(responses))

    yield take


def _summarise(_: Job[DatasetSampleSpec], artifact: Artifact) -> Summary:
    scores = artifact.batches(GIVEN_SCORES, ["reward"])
    return {
        **response_figures(artifact),
        "num_given_scores": sum(batch.num_rows - batch.column(0).null_count for batch in scores),
    }


class DatasetScores:
    """A `Scorer` that knows the data's scores of the responses of this stage."""

    def __init__(self, sampled: Artifact) -> None:
        self._by_id = {row.response_id: row for row in sampled.rows(GIVEN_SCORES, Score)}

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """The score of each response, missing where the data has none."""
        return [self._by_id[request.response_id] for request in requests]

    def close(self) -> None:
        """Do nothing: there is no model."""


DATASET_SAMPLE = Stage(
    name="sample",
    description=SAMPLE.description,
    version=1,
    image=SAMPLE.image,
    plan=_plan,
    open_worker=_open_worker,
    summarise=_summarise,
    unit="answers",
)
