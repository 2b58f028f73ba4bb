"""Scores of the benchmark lm_eval, in the form of other benchmarks: one category per task."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import Summary
from pvar.evaluation.benchmark_scores import (
    BenchmarkDifference,
    BenchmarkScore,
    known_number,
    unjudged_score,
)
from pvar.evaluation.lm_eval_change import (
    LmEvalChange,
    LmEvalResults,
    LmEvalScore,
    lm_eval_change,
    lm_eval_scores,
)
from pvar.lm_eval_records import LmEvalAggregate, LmEvalSample
from tasks.engine.artifact import Artifact
from tasks.stages.benchmark_inputs import ScoredModel
from tasks.stages.harness import AGGREGATES, SAMPLES, figure_name

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
    inputs: Mapping[str, Artifact], models: Sequence[ScoredModel], scoring: LmEvalScoring
) -> LmEvalScored:
    """Score the models of the inputs `harness-ROLE`, and compare challenger and opponent.

    Errors as in `pvar/evaluation/lm_eval_change.py`.
    """
    artifacts = {model.role: inputs[f"{HARNESS_INPUT}{model.role}"] for model in models}
    results = {role: lm_eval_results(artifact) for role, artifact in artifacts.items()}
    scores = []
    for model in models:
        rows = lm_eval_scores(
            results[model.role], metrics=scoring.metrics, confidence=CONFIDENCE, seed=scoring.seed
        )
        scores += [_mean(model, artifacts[model.role], rows), *(_score(model, row) for row in rows)]
    figures: Summary = {
        f"{role}_harness_version": artifact.manifest.summary["harness_version"]
        for role, artifact in artifacts.items()
    }
    if not {"challenger", "opponent"} <= results.keys():
        return LmEvalScored(scores, [], figures)
    change = lm_eval_change(
        results["challenger"],
        results["opponent"],
        metrics=scoring.metrics,
        confidence=CONFIDENCE,
        seed=scoring.seed,
    )
    differences = _differences(change)
    by_name = {figure_name(f"change_{row.name}"): known_number(row.change) for row in change.tasks}
    return LmEvalScored(
        scores,
        differences,
        {**figures, "num_questions": differences[0].num_questions, **by_name},
    )


def lm_eval_results(artifact: Artifact) -> LmEvalResults:
    """The rows of one model."""
    return LmEvalResults(
        artifact.rows(SAMPLES, LmEvalSample), artifact.rows(AGGREGATES, LmEvalAggregate)
    )


def _mean(model: ScoredModel, artifact: Artifact, rows: Sequence[LmEvalScore]) -> BenchmarkScore:
    """The mean over the tasks, with an interval if there is one task."""
    counts = artifact.manifest.row_counts
    return unjudged_score(
        role=model.role,
        model=model.name,
        category=None,
        score=known_number(sum(row.score for row in rows) / len(rows)),
        interval=(rows[0].ci_lower, rows[0].ci_upper) if len(rows) == 1 else None,
        num_questions=counts.rows_in,
        num_judged=counts.rows_out,
    )


def _score(model: ScoredModel, row: LmEvalScore) -> BenchmarkScore:
    return unjudged_score(
        role=model.role,
        model=model.name,
        category=f"{row.name} ({row.metric})",
        score=known_number(row.score),
        interval=(row.ci_lower, row.ci_upper),
        num_questions=row.num_questions,
        num_judged=row.num_questions,
    )


def _differences(change: LmEvalChange) -> list[BenchmarkDifference]:
    """The mean over the tasks first, then each task."""
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
