"""Stage score: one reward per response, by one reward model.

Each reward model has its own artifact. Shards are ranges of responses in the order of the sample
artifact. With two rounds of sampling, the input `scored` has the scores of the first round, which
are reused. The reward model of kind `dataset` copies the scores that the data holds. A missing
reward has a reason, in the rows and in the row counts. If every reward is missing, the model is the
cause and the stage fails.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from pvar.answer_rows import NO_SCORE
from pvar.artifacts import ShardSpec, Summary, plan_shards
from pvar.errors import ScoringError
from pvar.number_format import NumberFormat
from pvar.ports import Ports, Scorer, ScoreRequest
from pvar.records import Prompt, Response, Score
from pvar.references import find_references
from pvar.reward_config import DatasetReward, RewardModelConfig, in_format, reward_format
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.row_reader import RowReader
from tasks.engine.stage import Job, Stage, Work, discard_shards
from tasks.engine.tables import plain_values, write_table
from tasks.stages.dataset_sample import DatasetScores
from tasks.stages.ingest import PROMPTS
from tasks.stages.sample import RESPONSES

SCORES = "scores.parquet"

ADVICE = {
    "empty_response": "the policy's answers are empty: try another policy or its own chat template",
    "too_long": "raise its max_length_tokens up to its context, or lower sample.max_new_tokens",
    "not_finite": "it overflows, or its weights are damaged: load it with dtype float32",
    "template_refused": "its chat template does not accept these messages: use another model",
    NO_SCORE: "the data has no scores for its answers: add them, or use another reward model",
    "no_reward": "its function or server gave none for all of them: correct it, or use another one",
    "engine_failed": "see the engine's log above, and run again",
}
"""What to do if no response has a reward, by the most frequent reason."""


class ScoreSpec(BaseModel):
    """The settings that determine the rewards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reward_model: RewardModelConfig


def _plan(job: Job[ScoreSpec]) -> tuple[ShardSpec, ...]:
    responses = RowReader(job.inputs["responses"], RESPONSES, Response)
    return plan_shards(len(responses), job.runtime.responses_per_shard)


def _number_format(job: Job[ScoreSpec]) -> NumberFormat | None:
    choice = reward_format(job.spec.reward_model)
    return None if choice is None else job.ports.number_format(choice, learns=False)


def model_folders(settings: BaseModel, ports: Ports) -> dict[str, Path]:
    """The local folder of each model that the settings refer to, by its field."""
    return {
        reference.path: ports.model_folder(reference.text)
        for reference in find_references(settings)
        if reference.kind == "model"
    }


@contextmanager
def _open_worker(job: Job[ScoreSpec]) -> Iterator[Work]:
    responses = RowReader(job.inputs["responses"], RESPONSES, Response)
    prompts = PromptsById(job.inputs["prompts"])
    earlier = job.inputs["scored"].rows(SCORES, Score) if "scored" in job.inputs else []
    known = {row.response_id: row for row in earlier}
    scorer = _scorer(job)

    def score(shard: ShardSpec, folder: Path) -> RowCounts:
        here = responses.between(shard.start, shard.stop)
        asked = prompts.take({response.prompt_id for response in here})
        requests = [
            ScoreRequest(
                response.prompt_id,
                response.response_id,
                asked[response.prompt_id].messages,
                response.text,
                _answers(asked[response.prompt_id]),
            )
            for response in here
        ]
        new = [request for request in requests if request.response_id not in known]
        made = {row.response_id: finite_or_missing(row) for row in scorer.score(new)}
        scores = [
            made[name] if (name := request.response_id) in made else known[name]
            for request in requests
        ]
        write_table(folder / SCORES, scores, Score)
        missing = Counter(row.reason or "missing" for row in scores if row.reward is None)
        return RowCounts(
            rows_in=len(requests),
            rows_out=len(requests) - missing.total(),
            rejected=dict(sorted(missing.items())),
        )

    try:
        yield score
    finally:
        scorer.close()


class PromptsById:
    """Prompts by their ids, read when they are needed."""

    def __init__(self, ingested: Artifact) -> None:
        self._reader = RowReader(ingested, PROMPTS, Prompt)
        ids = map(plain_values, ingested.batches(PROMPTS, ["prompt_id"]))
        self._rows = {prompt_id: row for row, prompt_id in enumerate(chain.from_iterable(ids))}

    def take(self, prompt_ids: Iterable[str]) -> dict[str, Prompt]:
        """These prompts."""
        rows = sorted(self._rows[prompt_id] for prompt_id in prompt_ids)
        return {prompt.prompt_id: prompt for prompt in self._reader.take(rows)}


def _answers(prompt: Prompt) -> tuple[str, ...]:
    return prompt.accepted_answers or (() if prompt.chosen is None else (prompt.chosen,))


def _scorer(job: Job[ScoreSpec]) -> Scorer:
    reward_model = in_format(job.spec.reward_model, job.number_format)
    if isinstance(reward_model, DatasetReward):
        return DatasetScores(job.inputs["responses"])
    return job.ports.scorer(reward_model, model_folders(reward_model, job.ports), job.runtime)


def finite_or_missing(score: Score) -> Score:
    """The score, with a reward that is not finite replaced by a missing one."""
    if score.reward is None or math.isfinite(score.reward):
        return score
    return score._replace(reward=None, reason="not_finite")


def _summarise(job: Job[ScoreSpec], artifact: Artifact) -> Summary:
    row_counts = artifact.manifest.row_counts
    parts = [batch.column(0).drop_null() for batch in artifact.batches(SCORES, ["reward"])]
    rewards = np.concatenate([np.empty(0), *(part.to_numpy() for part in parts)])
    if not len(rewards) and row_counts.rows_in:
        discard_shards(artifact)
        most_frequent = max(row_counts.rejected, key=row_counts.rejected.__getitem__)
        advice = ADVICE.get(most_frequent, "check that it is a reward model of a supported form")
        raise ScoringError(
            f"reward model {job.spec.reward_model.name!r} gave no reward for any of "
            f"{row_counts.rows_in} responses ({row_counts.rejected}); {advice}"
        )
    return {
        "num_rewards": len(rewards),
        "reward_mean": float(np.mean(rewards)) if len(rewards) else None,
        "reward_std": float(np.std(rewards)) if len(rewards) else None,
    }


SCORE = Stage(
    name="score",
    description="Score each response by the reward models.",
    version=1,
    image="train",
    wants_gpu=True,
    plan=_plan,
    open_worker=_open_worker,
    summarise=_summarise,
    unit="responses",
    number_format=_number_format,
)
