"""The benchmarks of a run, for its report."""

from collections.abc import Mapping, Sequence

from flows.judge_remarks import check_remark, epoch_remark
from flows.run_record import RunRecord
from pvar.benchmark_config import BenchmarkConfig, JudgedBenchmark
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.benchmark_scores import BenchmarkDifference, BenchmarkScore, QuestionResult
from pvar.records import Prompt, Response
from tasks.benchmark_nodes import judge_of, score_name
from tasks.engine.artifact import Artifact
from tasks.report.benchmark_report import BenchmarkAnswer, BenchmarkReport, BenchmarkSide
from tasks.stages.benchmark import BY_QUESTION, CHALLENGER, DIFFERENCES, OPPONENT, RESULTS
from tasks.stages.benchmark_label_agreement import FIRST_ROLE
from tasks.stages.exam_questions import BASELINE
from tasks.stages.ingest import PROMPTS
from tasks.stages.judge import answer_texts
from tasks.stages.sample import RESPONSES

ROLES = {CHALLENGER: "new model", OPPONENT: "opponent", FIRST_ROLE: "first model"}

NUM_EXAMPLES_EACH = 2
"""Answers of the challenger that won against the baseline, and as many that lost."""


def benchmark_reports(
    record: RunRecord, artifacts: Mapping[str, Artifact]
) -> tuple[BenchmarkReport, ...]:
    """One entry per benchmark that was scored."""
    return tuple(
        _report(benchmark, artifacts[score_name(benchmark.name)], artifacts)
        for benchmark in record.config.benchmarks
        if score_name(benchmark.name) in artifacts
    )


def _report(
    benchmark: BenchmarkConfig, scored: Artifact, artifacts: Mapping[str, Artifact]
) -> BenchmarkReport:
    scores = scored.rows(RESULTS, BenchmarkScore)
    by_question = scored.rows(BY_QUESTION, QuestionResult)
    differences = {row.category: row for row in scored.rows(DIFFERENCES, BenchmarkDifference)}
    questions = artifacts.get(f"questions-{benchmark.name}")
    ungraded = questions.manifest.summary.get("ungraded_categories") if questions else None
    judge = judge_of(benchmark)
    return BenchmarkReport(
        name=benchmark.name,
        kind=benchmark.kind,
        judge=judge,
        sides=tuple(_side(score, by_question, differences.get(score.category)) for score in scores),
        ungraded=str(ungraded) if ungraded else None,
        not_measured=_text(scored.manifest.summary.get("not_measured")),
        judge_check=_judge_check(benchmark, artifacts),
        answers=tuple(_answers(benchmark.name, by_question, artifacts)) if judge else (),
    )


def _judge_check(benchmark: BenchmarkConfig, artifacts: Mapping[str, Artifact]) -> str | None:
    """What is known of the judge's drift; None if the judge is not a server."""
    if not isinstance(benchmark, JudgedBenchmark):
        return None
    nodes = (f"judge-{benchmark.name}-{role}" for role in (CHALLENGER, OPPONENT))
    judged = [artifacts[node] for node in nodes if node in artifacts]
    # The latest comparison is that of the judgments that were made last; the first ones have none.
    compared = [each for each in judged if each.manifest.summary.get("num_anchors")] or judged
    if not compared:
        return None
    epoch = epoch_remark(compared[0].store, benchmark.judge, benchmark.judge_epoch)
    remarks = (check_remark(compared[0].manifest.summary), epoch)
    return " ".join(remark for remark in remarks if remark) or None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _side(
    score: BenchmarkScore,
    by_question: Sequence[QuestionResult],
    difference: BenchmarkDifference | None,
) -> BenchmarkSide:
    values = [
        row.value
        for row in by_question
        if row.role == score.role
        and row.value is not None
        and score.category in (None, row.category)
    ]
    return BenchmarkSide(
        role=ROLES.get(score.role, score.role),
        model=score.model,
        category=score.category,
        score=score.score,
        ci_lower=score.clustered_ci_lower,
        ci_upper=score.clustered_ci_upper,
        length_controlled=score.length_controlled_win_rate,
        style_controlled=score.style_controlled_score,
        mean_length=score.mean_length_characters,
        coverage=score.coverage,
        num_won=sum(value > 0.5 for value in values) if values else None,
        num_lost=sum(value < 0.5 for value in values) if values else None,
        difference=difference if score.role == CHALLENGER else None,
    )


def _answers(
    name: str, by_question: Sequence[QuestionResult], artifacts: Mapping[str, Artifact]
) -> list[BenchmarkAnswer]:
    """Answers of the challenger to the first questions that it won and lost, by their ids."""
    answers = artifacts.get(f"answers-{name}-{CHALLENGER}")
    questions = artifacts.get(f"questions-{name}")
    if answers is None or questions is None:
        return []
    judged = sorted(
        (row for row in by_question if row.role == CHALLENGER and row.value is not None),
        key=lambda row: row.prompt_id,
    )
    won = [row for row in judged if (row.value or 0) > 0.5][:NUM_EXAMPLES_EACH]
    lost = [row for row in judged if (row.value or 0) < 0.5][:NUM_EXAMPLES_EACH]
    texts = answer_texts(answers.rows(RESPONSES, Response))
    prompts = {row.prompt_id: row for row in questions.rows(PROMPTS, Prompt)}
    baseline = {row.prompt_id: row for row in questions.rows(BASELINE, BenchmarkQuestion)}
    return [
        BenchmarkAnswer(
            messages=prompts[row.prompt_id].messages,
            baseline=baseline[row.prompt_id].baseline_answer,
            answer=texts[row.prompt_id],
            won=(row.value or 0) > 0.5,
        )
        for row in (*won, *lost)
    ]
