"""Scores of the benchmark lm_eval, in the form of other benchmarks: one category per task."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Summary
from pvar.evaluation.benchmark_scores import (
    BenchmarkDifference,
    BenchmarkScore,
    known_number,
    unjudged_score,
)
from pvar.evaluation.lm_eval_change import LmEvalChange
from tasks.engine.artifact import Artifact
from tasks.stages.benchmark_inputs import ScoredModel
from tasks.stages.harness_result import LmEvalOutcome, score_lm_eval

HARNESS_INPUT = "harness-"
CONFIDENCE = 0.95


class LmEvalScoring(BaseModel):
    """The settings that determine how tasks are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["lm_eval"]
    metrics: tuple[str, ...]
    seed: int


class LmEvalScored(NamedTuple):
    """The result in the form of other benchmarks."""

    scores: list[BenchmarkScore]
    differences: list[BenchmarkDifference]
    figures: Summary


def score_tasks(
    inputs: Mapping[str, Artifact], models: tuple[ScoredModel, ...], scoring: LmEvalScoring
) -> LmEvalScored:
    """Score the models of the inputs `harness-ROLE`, and compare challenger and opponent."""
    artifacts = {model.role: inputs[f"{HARNESS_INPUT}{model.role}"] for model in models}
    outcome = score_lm_eval(
        artifacts, metrics=scoring.metrics, confidence=CONFIDENCE, seed=scoring.seed
    )
    return LmEvalScored(
        [score for model in models for score in _scores(model, artifacts, outcome)],
        _differences(outcome.change) if outcome.change else [],
        outcome.summary,
    )


def _scores(
    model: ScoredModel, artifacts: Mapping[str, Artifact], outcome: LmEvalOutcome
) -> list[BenchmarkScore]:
    """The mean over the tasks first, then each task."""
    rows = [row for row in outcome.scores if row.role == model.role]
    known = [row.score for row in rows if row.score is not None]
    counts = artifacts[model.role].manifest.row_counts
    overall = unjudged_score(
        role=model.role,
        model=model.name,
        category=None,
        score=sum(known) / len(known) if len(known) == len(rows) else None,
        interval=(rows[0].ci_lower, rows[0].ci_upper) if len(rows) == 1 else None,
        num_questions=counts.rows_in,
        num_judged=counts.rows_out,
    )
    return [
        overall,
        *(
            unjudged_score(
                role=model.role,
                model=model.name,
                category=f"{row.name} ({row.metric})",
                score=row.score,
                interval=(row.ci_lower, row.ci_upper),
                num_questions=row.num_questions,
                num_judged=row.num_questions,
            )
            for row in rows
        ),
    ]


def _differences(change: LmEvalChange) -> list[BenchmarkDifference]:
    mean = change.mean
    return [
        BenchmarkDifference(
            None,
            known_number(mean.change),
            known_number(mean.ci_lower),
            known_number(mean.ci_upper),
            sum(row.num_questions for row in change.tasks),
        ),
        *(
            BenchmarkDifference(
                f"{row.name} ({row.metric})",
                known_number(row.change),
                known_number(row.ci_lower),
                known_number(row.ci_upper),
                row.num_questions,
            )
            for row in change.tasks
        ),
    ]
