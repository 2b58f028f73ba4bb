"""Scores of models on lm-evaluation-harness's tasks, from their artifacts of stage harness."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pvar.artifacts import Summary
from pvar.evaluation.lm_eval_change import (
    LmEvalChange,
    LmEvalResults,
    LmEvalScore,
    lm_eval_change,
    lm_eval_scores,
)
from pvar.lm_eval_records import LmEvalAggregate, LmEvalSample
from tasks.engine.artifact import Artifact
from tasks.stages.harness import AGGREGATES, SAMPLES, figure_name

CHALLENGER, OPPONENT = "challenger", "opponent"


class LmEvalRoleScore(NamedTuple):
    """One model's score on one configured name."""

    role: str
    name: str
    metric: str
    num_tasks: int
    num_questions: int
    score: float | None
    """In percent; None if no question has a value."""
    ci_lower: float
    ci_upper: float


class LmEvalOutcome(NamedTuple):
    """The results of a benchmark of kind lm_eval."""

    scores: tuple[LmEvalRoleScore, ...]
    """By role and name."""
    change: LmEvalChange | None
    """Challenger against opponent; None unless both are given."""
    summary: Summary


def score_lm_eval(
    models: Mapping[str, Artifact], *, metrics: Sequence[str], confidence: float, seed: int
) -> LmEvalOutcome:
    """Scores of all models, by role, and the change of the challenger against the opponent.

    Errors as in `pvar/evaluation/lm_eval_change.py`.
    """
    results = {role: lm_eval_results(artifact) for role, artifact in models.items()}
    scores = {
        role: lm_eval_scores(each, metrics=metrics, confidence=confidence, seed=seed)
        for role, each in results.items()
    }
    change = None
    if CHALLENGER in results and OPPONENT in results:
        change = lm_eval_change(
            results[CHALLENGER],
            results[OPPONENT],
            metrics=metrics,
            confidence=confidence,
            seed=seed,
        )
    return LmEvalOutcome(
        tuple(_row(role, score) for role, rows in scores.items() for score in rows),
        change,
        {
            **{f"{role}_score": _mean(rows) for role, rows in scores.items()},
            **{
                f"{role}_harness_version": artifact.manifest.summary["harness_version"]
                for role, artifact in models.items()
            },
            **(_change_summary(change) if change else {}),
        },
    )


def lm_eval_results(artifact: Artifact) -> LmEvalResults:
    """The rows of one model."""
    return LmEvalResults(
        artifact.rows(SAMPLES, LmEvalSample), artifact.rows(AGGREGATES, LmEvalAggregate)
    )


def _row(role: str, score: LmEvalScore) -> LmEvalRoleScore:
    return LmEvalRoleScore(role, **{**score._asdict(), "score": _number(score.score)})


def _mean(scores: Sequence[LmEvalScore]) -> float | None:
    return _number(sum(row.score for row in scores) / len(scores))


def _change_summary(change: LmEvalChange) -> Summary:
    """The mean over the names, and the change of each name, in points."""
    mean = change.mean
    return {
        "change": _number(mean.change),
        "change_lower": _number(mean.ci_lower),
        "change_upper": _number(mean.ci_upper),
        "num_questions": sum(row.num_questions for row in change.tasks),
        **{figure_name(f"change_{row.name}"): _number(row.change) for row in change.tasks},
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
