"""Stage benchmark: score models on a benchmark from their judged answers, and export the files.

The artifact has the scores of each model (over all questions, and by category), each model's result
on each question, the paired difference of challenger and opponent, and the projects' own files.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, assert_never

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.evaluation.benchmark_scores import (
    BenchmarkDifference,
    BenchmarkScore,
    QuestionResult,
    benchmark_difference,
)
from pvar.evaluation.preference_accuracy import PreferenceAccuracy
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.benchmark_alpaca_eval import AlpacaEvalScoring, score_and_export_alpaca_eval
from tasks.stages.benchmark_arena_hard import ArenaHardScoring, score_and_export_arena_hard
from tasks.stages.benchmark_inputs import JUDGMENTS_INPUT, JudgedScores, ScoredModel, read_judged
from tasks.stages.benchmark_label_agreement import (
    LABEL_AGREEMENT,
    LabelAgreementScoring,
    score_label_agreement,
)
from tasks.stages.benchmark_lm_eval import LmEvalScoring, score_tasks

RESULTS = "results.parquet"
BY_QUESTION = "by_question.parquet"
DIFFERENCES = "differences.parquet"
FIGURES = "figures.json"
EXPORTED = "exported"
"""Folder of the projects' own files: `exported/ROLE/…`."""

CHALLENGER, OPPONENT = "challenger", "opponent"

JudgedScoring = AlpacaEvalScoring | ArenaHardScoring
Scoring = JudgedScoring | LabelAgreementScoring | LmEvalScoring


class BenchmarkSpec(BaseModel):
    """The settings that determine the scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scoring: Scoring
    models: tuple[ScoredModel, ...]


class Scored(NamedTuple):
    """The result of a benchmark."""

    scores: list[BenchmarkScore]
    differences: list[BenchmarkDifference]
    by_question: Sequence[QuestionResult] = ()
    figures: Summary | None = None
    """Further figures of the summary."""


@contextmanager
def _open_worker(job: Job[BenchmarkSpec]) -> Iterator[Work]:
    def score(_: ShardSpec, folder: Path) -> RowCounts:
        scored = _score_and_export(job, folder)
        write_table(folder / RESULTS, scored.scores, BenchmarkScore)
        write_table(folder / BY_QUESTION, scored.by_question, QuestionResult)
        write_table(folder / DIFFERENCES, scored.differences, BenchmarkDifference)
        (folder / FIGURES).write_text(json.dumps(scored.figures or {}), encoding="utf-8")
        overall = [score for score in scored.scores if score.category is None]
        num_questions = sum(score.num_questions for score in overall)
        num_judged = sum(score.num_judged for score in overall)
        missing = num_questions - num_judged
        return RowCounts(
            rows_in=num_questions,
            rows_out=num_judged,
            rejected={"not_judged": missing} if missing else {},
        )

    yield score


def _score_and_export(job: Job[BenchmarkSpec], folder: Path) -> Scored:
    scoring = job.spec.scoring
    match scoring:
        case LabelAgreementScoring():
            found = score_label_agreement(job.inputs, job.spec.models, scoring)
            write_table(folder / LABEL_AGREEMENT, found.accuracies, PreferenceAccuracy)
            return Scored(found.scores, found.differences, figures=found.figures)
        case LmEvalScoring():
            tasks = score_tasks(job.inputs, job.spec.models, scoring)
            return Scored(tasks.scores, tasks.differences, figures=tasks.figures)
        case _:
            judged = _score_judged(job, scoring, folder / EXPORTED)
            differences = _differences(judged.by_question, seed=scoring.seed)
            return Scored(judged.scores, differences, judged.by_question, judged.figures)


def _score_judged(job: Job[BenchmarkSpec], scoring: JudgedScoring, folder: Path) -> JudgedScores:
    benchmark = read_judged(job.inputs, job.spec.models)
    match scoring:
        case AlpacaEvalScoring():
            return score_and_export_alpaca_eval(benchmark, scoring, job.ports, folder)
        case ArenaHardScoring():
            return score_and_export_arena_hard(benchmark, scoring, folder)
        case unknown:
            assert_never(unknown)


def _differences(rows: Sequence[QuestionResult], *, seed: int) -> list[BenchmarkDifference]:
    """Challenger minus opponent, over all questions first; empty unless both were scored."""
    ours = [row for row in rows if row.role == CHALLENGER]
    theirs = [row for row in rows if row.role == OPPONENT]
    if not ours or not theirs:
        return []
    categories = sorted({row.category for row in ours if row.category is not None})
    groups: list[str | None] = [None, *(categories if len(categories) > 1 else ())]
    return [
        benchmark_difference(
            [row for row in ours if category in (None, row.category)],
            [row for row in theirs if category in (None, row.category)],
            category=category,
            seed=seed,
        )
        for category in groups
    ]


def _summarise(job: Job[BenchmarkSpec], artifact: Artifact) -> Summary:
    (figures,) = artifact.paths(FIGURES)
    summary: dict[str, float | int | str | bool | None] = json.loads(
        figures.read_text(encoding="utf-8")
    )
    for name, judgments in job.inputs.items():
        if name.startswith(JUDGMENTS_INPUT):
            summary["judge_epoch"] = judgments.manifest.summary.get("judge_epoch")
    for score in artifact.rows(RESULTS, BenchmarkScore):
        if score.category is None:
            summary |= _figures(score)
    for difference in artifact.rows(DIFFERENCES, BenchmarkDifference):
        if difference.category is None:
            summary |= {
                "difference": difference.difference,
                "difference_lower": difference.ci_lower,
                "difference_upper": difference.ci_upper,
            }
    return summary


def _figures(score: BenchmarkScore) -> Summary:
    """The figures of one model, for MLflow and the version's tags."""
    figures = {
        "score": score.score,
        "lower": score.clustered_ci_lower,
        "upper": score.clustered_ci_upper,
        "length_controlled_win_rate": score.length_controlled_win_rate,
        "style_controlled_score": score.style_controlled_score,
        "mean_length_characters": score.mean_length_characters,
        "coverage": score.coverage,
    }
    return {f"{score.role}_{name}": value for name, value in figures.items()}


BENCHMARK = Stage(
    name="benchmark",
    description="Score models on a benchmark, and export its own files.",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
