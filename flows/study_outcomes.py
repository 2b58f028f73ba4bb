"""What a study's trainings did, read from their artifacts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.study_record import StudyRecord, StudyTraining
from flows.wiring import Wiring
from pvar.artifacts import Manifest, Summary
from pvar.evaluation.ability import share_right
from pvar.evaluation.benchmark_scores import QuestionResult
from pvar.records import Prompt, Response, Verdict
from pvar.study_certificate import Pool
from pvar.study_config import HELD_OUT
from pvar.study_margins import HeldOutMargins
from pvar.study_results import FIGURES, TrainingResult
from tasks.benchmark_nodes import score_name
from tasks.engine.artifact import Artifact, open_artifact, read_document
from tasks.engine.tables import PromptVariance, TrainStep, by_prompt
from tasks.exam_nodes import exam_node
from tasks.held_out_nodes import HELD_OUT_SELECT
from tasks.report.study_figures import TrainingPoint
from tasks.stages.benchmark import BY_QUESTION, CHALLENGER
from tasks.stages.evaluate import preferences
from tasks.stages.ingest import INGEST, PROMPTS
from tasks.stages.judgments import VERDICTS
from tasks.stages.sample import RESPONSES
from tasks.stages.select import VARIANCE
from tasks.stages.train import STEPS, held_out_margins

SUMMARY_NAMES = {
    "num_distinct_pairs": "num_pairs",
    "num_pairs": "num_pairs_seen",
    "seconds": "training_seconds",
    "mean_length_tokens": "challenger_mean_length_tokens",
    "ended_share": "challenger_ended_share",
    "repetition": "challenger_repetition",
}
"""Names in the stages' summaries of FIGURES that are named otherwise there."""


class Outcome(NamedTuple):
    """A finished training."""

    training: StudyTraining
    result: TrainingResult
    start_ability: Mapping[str, float]
    """The opponent's share of right answers per ability question."""
    margins: NDArray[np.float64]
    """Implicit margin of the training pairs at each step, (num_steps,)."""
    pool: Pool
    """PVar of the prompts from which it selected."""
    held_out: HeldOutMargins | None
    """Margins of held-out pairs; None if they are not measured (`evaluate.margins`)."""
    sources: Mapping[str, str]
    """The source of each held-out prompt, by its id."""

    @property
    def point(self) -> TrainingPoint | None:
        """Divergence, win rate and ability; None if one of the first two is not known."""
        kl, preferences = self.result.figures["kl"], self.result.preferences[HELD_OUT]
        if kl is None or not preferences:
            return None
        change = None
        if self.start_ability:
            change = fmean(self.result.ability.values()) - fmean(self.start_ability.values())
        return TrainingPoint(self.training.cell, kl, fmean(preferences.values()), change)


class _Artifacts:
    """The artifacts of one training."""

    def __init__(
        self, record: StudyRecord, training: StudyTraining, wiring: Wiring, scratch: Path
    ) -> None:
        self._nodes = record.nodes_of(training)
        self._store, self._scratch = wiring.store, scratch

    def of(self, node: str) -> Artifact:
        keys = self._nodes[node].keys
        return open_artifact(self._store, keys.stage, keys.digest, self._scratch)

    def has(self, node: str) -> bool:
        return node in self._nodes

    def summaries(self) -> Iterator[Summary]:
        """Those of the stages whose figures the table shows."""
        for node in ("select", "train", "evaluate", "divergence"):
            if self.has(node):
                yield self.of(node).manifest.summary


def is_made(record: StudyRecord, training: StudyTraining, wiring: Wiring) -> bool:
    """Whether every artifact of the training is complete."""
    return all(
        read_document(wiring.store, node.keys.manifest, Manifest) is not None
        for node in reversed(list(record.nodes_of(training).values()))  # the last is missing first
    )


def read_outcome(
    record: StudyRecord, training: StudyTraining, wiring: Wiring, scratch: Path
) -> Outcome:
    """The results of a training that is done. `scratch` is a folder for its tables."""
    artifacts = _Artifacts(record, training, wiring, scratch)
    exam = exam_node(record.nodes_of(training))
    rows = artifacts.of(exam).rows(PROMPTS, Prompt)
    ingested = rows if exam == INGEST.name else artifacts.of(INGEST.name).rows(PROMPTS, Prompt)
    held_out = [row for row in rows if row.split == "eval"]
    questions = [row for row in held_out if row.is_question]
    return Outcome(
        training,
        TrainingResult(
            {
                HELD_OUT: _preferences(held_out, artifacts.of(HELD_OUT), record, training),
                **{
                    name: _won(artifacts.of(score_name(name)))
                    for name in record.config.endpoints
                    if name != HELD_OUT
                },
            },
            _shares_right(artifacts.of("answers-challenger"), questions),
            _figures(artifacts),
        ),
        _shares_right(artifacts.of("answers-opponent"), questions),
        np.array([step.margin for step in artifacts.of("train").rows(STEPS, TrainStep)]),
        _pool(artifacts.of("select"), {row.prompt_id: row.source for row in ingested}),
        _held_out(artifacts) if artifacts.has(HELD_OUT_SELECT) else None,
        {row.prompt_id: row.source for row in held_out},
    )


def _held_out(artifacts: _Artifacts) -> HeldOutMargins:
    rows = held_out_margins(artifacts.of("train"))
    steps = sorted({row.step for row in rows})
    prompts = [row.prompt_id for row in rows if row.step == steps[0]]
    measured = artifacts.of(HELD_OUT_SELECT).rows(VARIANCE, PromptVariance)
    return HeldOutMargins(
        tuple(steps),
        tuple(prompts),
        np.array([row.margin for row in rows]).reshape(len(steps), len(prompts)),
        {row.prompt_id: row.pvar for row in measured if row.pvar is not None},
    )


def _pool(select: Artifact, sources: Mapping[str, str]) -> Pool:
    rows = select.rows(VARIANCE, PromptVariance)
    known = {row.prompt_id: row.pvar for row in rows if row.pvar is not None}
    return Pool.of(
        np.array(list(known.values())),
        num_without=len(rows) - len(known),
        sources=[sources[prompt_id] for prompt_id in known],
    )


def _preferences(
    held_out: list[Prompt], evaluate: Artifact, record: StudyRecord, training: StudyTraining
) -> dict[str, float]:
    num_answers = record.pipeline_of(training).evaluate.num_answers
    judged = [prompt for prompt in held_out if not prompt.is_question]
    table = preferences(judged, evaluate.rows(VERDICTS, Verdict), num_answers)
    return {
        prompt.prompt_id: float(np.nanmean(row))
        for prompt, row in zip(judged, table, strict=True)
        if not np.isnan(row).all()
    }


def _won(scores: Artifact) -> dict[str, float]:
    """What the trained model won of each question of a benchmark, unweighted."""
    return {
        row.prompt_id: row.value
        for row in scores.rows(BY_QUESTION, QuestionResult)
        if row.role == CHALLENGER and row.value is not None
    }


def _shares_right(answers: Artifact, questions: list[Prompt]) -> dict[str, float]:
    given = by_prompt(answers.rows(RESPONSES, Response))
    return {
        question.prompt_id: share_right(
            [answer.text for answer in given.get(question.prompt_id, ())],
            question.accepted_answers,
        )
        for question in questions
    }


def _figures(artifacts: _Artifacts) -> dict[str, float | None]:
    known: Summary = {}
    for summary in artifacts.summaries():
        known |= summary
    found: dict[str, float | None] = {}
    for name in FIGURES:
        value = known.get(SUMMARY_NAMES.get(name, name))
        found[name] = float(value) if isinstance(value, int | float) else None
    return found


def total_seconds(record: StudyRecord) -> float:
    """Wall time of all trainings' processes so far."""
    return sum(training.seconds or 0.0 for training in record.trainings)


REUSED_SECONDS = 20.0
"""A training that took less found its artifacts: it says nothing about the time of another."""


def mean_seconds(record: StudyRecord) -> float | None:
    """Mean wall time of the trainings that were made; None before the first."""
    known = [
        each.seconds
        for each in record.trainings
        if each.state == "done" and each.seconds and each.seconds > REUSED_SECONDS
    ]
    return fmean(known) if known else None
