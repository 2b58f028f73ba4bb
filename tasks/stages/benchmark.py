"""Stage benchmark: score models on a benchmark from their judged answers, and export the files.

The artifact has the scores of each model (over all questions, and by category), each model's result
on each question, the paired difference of challenger and opponent, and the projects' own files.
"""

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
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import write_table
from tasks.stages.benchmark_alpaca_eval import (
    AlpacaEvalScoring,
    alpaca_eval_questions,
    export_alpaca_eval,
    read_tables,
    score_model_on_alpaca_eval,
)
from tasks.stages.benchmark_arena_hard import (
    ArenaHardScoring,
    arena_hard_questions,
    export_arena_hard,
    score_models_on_arena_hard,
)
from tasks.stages.benchmark_inputs import JudgedBenchmark, JudgedModel, ScoredModel, read_judged

RESULTS = "results.parquet"
BY_QUESTION = "by_question.parquet"
DIFFERENCES = "differences.parquet"
EXPORTED = "exported"
"""Folder of the projects' own files: `exported/ROLE/…`."""

CHALLENGER, OPPONENT = "challenger", "opponent"


class BenchmarkSpec(BaseModel):
    """The settings that determine the scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scoring: AlpacaEvalScoring | ArenaHardScoring
    models: tuple[ScoredModel, ...]


class Scored(NamedTuple):
    """The result of a benchmark."""

    scores: list[BenchmarkScore]
    by_question: list[QuestionResult]


@contextmanager
def _open_worker(job: Job[BenchmarkSpec]) -> Iterator[Work]:
    def score(_: ShardSpec, folder: Path) -> RowCounts:
        scored = _score_and_export(job, folder / EXPORTED)
        write_table(folder / RESULTS, scored.scores, BenchmarkScore)
        write_table(folder / BY_QUESTION, scored.by_question, QuestionResult)
        write_table(
            folder / DIFFERENCES,
            _differences(scored.by_question, seed=job.spec.scoring.seed),
            BenchmarkDifference,
        )
        num_judged = sum(row.value is not None for row in scored.by_question)
        missing = len(scored.by_question) - num_judged
        return RowCounts(
            rows_in=len(scored.by_question),
            rows_out=num_judged,
            rejected={"not_judged": missing} if missing else {},
        )

    yield score


def _score_and_export(job: Job[BenchmarkSpec], folder: Path) -> Scored:
    scoring = job.spec.scoring
    benchmark = read_judged(job.inputs, job.spec.models)
    match scoring:
        case AlpacaEvalScoring():
            tables = read_tables(scoring.calibration, job.ports)
            scores = [
                score
                for model in benchmark.models
                for score in score_model_on_alpaca_eval(benchmark, model, tables, seed=scoring.seed)
            ]
            for model in benchmark.models:
                export_alpaca_eval(benchmark, model, scoring.judge, folder / model.role)
        case ArenaHardScoring():
            scores = score_models_on_arena_hard(benchmark, scoring)
            for model in benchmark.models:
                export_arena_hard(benchmark, model, scoring, folder / model.role)
        case unknown:
            assert_never(unknown)
    by_question = [
        row for model in benchmark.models for row in _by_question(benchmark, model, scoring)
    ]
    return Scored(scores, by_question)


def _by_question(
    benchmark: JudgedBenchmark, model: JudgedModel, scoring: AlpacaEvalScoring | ArenaHardScoring
) -> list[QuestionResult]:
    match scoring:
        case AlpacaEvalScoring():
            return alpaca_eval_questions(benchmark, model)
        case ArenaHardScoring():
            return arena_hard_questions(benchmark, model, scoring)


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


def _summarise(_: Job[BenchmarkSpec], artifact: Artifact) -> Summary:
    summary: dict[str, float | int | str | bool | None] = {}
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
