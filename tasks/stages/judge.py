"""Stage judge: a model's answers to a benchmark against the baseline's answers.

AlpacaEval shows each pair once, in the published order; equal answers are a draw without a call.
Arena-Hard shows it in both orders. A thought that precedes an answer is not judged. A question
without an answer is not judged, and lowers the coverage.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pvar.artifacts import ShardSpec, Summary
from pvar.evaluation.arena_hard_judge import WITHOUT_OWN_ANSWER
from pvar.evaluation.benchmark_questions import CREATIVE_WRITING, BenchmarkQuestion
from pvar.judge_config import JudgeConfig
from pvar.judging import JudgeBudget
from pvar.judging_result import JudgedPair, JudgingResult, Showing
from pvar.ports import Judge
from pvar.records import Comparison, Prompt, Response, Verdict
from pvar.row_counts import RowCounts
from pvar.thought import without_thought
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import JudgedShowing, by_prompt
from tasks.stages.exam_questions import BASELINE
from tasks.stages.ingest import PROMPTS
from tasks.stages.judge_pairs import judge_pairs
from tasks.stages.judgments import (
    SHOWINGS,
    VERDICTS,
    cache_of,
    judge_figures,
    judge_format,
    judge_in_format,
    write_judgments,
)
from tasks.stages.sample import RESPONSES
from tasks.stages.score import model_folders

COST = "cost.json"

EQUAL_ANSWERS = Showing(is_swapped=False, preference=0.5, evidence="equal answers", reason=None)
"""AlpacaEval's verdict on two equal answers, without a call."""

NO_ANSWER = "no_answer"
UNANSWERED = Showing(is_swapped=False, preference=None, evidence=None, reason=NO_ANSWER)
"""A question to which the model gave no answer."""


class JudgeSpec(BaseModel):
    """The settings that determine the judgments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: JudgeConfig
    orders: Literal["both", "seeded"]
    creative_instructions: str | None
    """System prompt for questions of category creative_writing (judge arena_hard)."""
    required_coverage: float = Field(exclude=True)
    """Minimum coverage. Below it the stage fails, and keeps its verdicts."""


class JudgingCost(BaseModel):
    """What the judgments cost this time. Verdicts from the cache were paid before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_calls: int
    num_cached: int
    usd: float | None


def answer_texts(responses: Sequence[Response]) -> dict[str, str]:
    """The judged text of each prompt's first answer."""
    return {
        prompt_id: without_thought(rows[0].text).text
        for prompt_id, rows in by_prompt(responses).items()
    }


def _judge_of(job: Job[JudgeSpec], *, is_creative: bool) -> Judge:
    judge = judge_in_format(job.spec.judge, job.number_format)
    if judge.kind == "arena_hard" and is_creative:
        wording = job.spec.creative_instructions or WITHOUT_OWN_ANSWER.system
        judge = judge.model_copy(update={"instructions": wording})
    return job.ports.judge(judge, model_folders(job.spec.judge, job.ports), job.runtime)


@contextmanager
def _open_worker(job: Job[JudgeSpec]) -> Iterator[Work]:
    def judge(_: ShardSpec, folder: Path) -> RowCounts:
        questions = job.inputs["questions"].rows(BASELINE, BenchmarkQuestion)
        answers = answer_texts(job.inputs["answers"].rows(RESPONSES, Response))
        result = _judged(job, questions, answers)
        verdicts = result.final_verdicts()
        write_judgments(folder, result)
        cost = JudgingCost(num_calls=result.num_calls, num_cached=result.num_cached, usd=result.usd)
        (folder / COST).write_text(cost.model_dump_json(), encoding="utf-8")
        missing = Counter(
            NO_ANSWER if verdict.reason == NO_ANSWER else "no_verdict"
            for verdict in verdicts
            if verdict.preference is None
        )
        return RowCounts(rows_in=len(verdicts), rows_out=result.num_judged, rejected=dict(missing))

    yield judge


def _judged(
    job: Job[JudgeSpec], questions: Sequence[BenchmarkQuestion], answers: dict[str, str]
) -> JudgingResult:
    """Judge all answers within one budget. A question without an answer has no preference."""
    prompts = {each.prompt_id: each for each in job.inputs["questions"].rows(PROMPTS, Prompt)}
    budget = JudgeBudget(job.runtime.judge_max_calls, job.runtime.judge_max_usd)
    results = []
    for is_creative in (False, True):
        comparisons = [
            Comparison(
                row.prompt_id,
                prompts[row.prompt_id].messages,
                row.baseline_answer,
                answers[row.prompt_id],
            )
            for row in questions
            if (row.category == CREATIVE_WRITING) == is_creative and row.prompt_id in answers
        ]
        if comparisons:
            results.append(_judge_all(job, comparisons, budget, is_creative=is_creative))
            budget = _left_of(budget, results[-1])
    unanswered = (
        JudgedPair(row.prompt_id, (UNANSWERED,))
        for row in questions
        if row.prompt_id not in answers
    )
    total = _total(results, min_coverage=job.spec.required_coverage)
    return replace(total, pairs=(*total.pairs, *unanswered))


def _judge_all(
    job: Job[JudgeSpec],
    comparisons: Sequence[Comparison],
    budget: JudgeBudget,
    *,
    is_creative: bool,
) -> JudgingResult:
    judge = _judge_of(job, is_creative=is_creative)
    has_draws = job.spec.orders == "seeded"
    result = judge_pairs(
        judge,
        [each for each in comparisons if not (has_draws and each.first == each.second)],
        cache=cache_of(judge, job.ports),
        budget=budget,
        min_coverage=0.0,  # checked over all questions
        orders=job.spec.orders,
        progress=job.progress,
    )
    draws = (
        JudgedPair(each.prompt_id, (EQUAL_ANSWERS,))
        for each in comparisons
        if has_draws and each.first == each.second
    )
    return replace(result, pairs=(*result.pairs, *draws))


def _left_of(budget: JudgeBudget, spent: JudgingResult) -> JudgeBudget:
    max_calls, max_usd = budget.max_calls, budget.max_usd
    return JudgeBudget(
        None if max_calls is None else max(0, max_calls - spent.num_calls),
        None if max_usd is None else max(0.0, max_usd - (spent.usd or 0.0)),
    )


def _total(results: Sequence[JudgingResult], *, min_coverage: float) -> JudgingResult:
    costs = [result.usd for result in results]
    return JudgingResult(
        pairs=tuple(pair for result in results for pair in result.pairs),
        min_coverage=min_coverage,
        num_calls=sum(result.num_calls for result in results),
        num_cached=sum(result.num_cached for result in results),
        usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def read_cost(artifact: Artifact) -> JudgingCost:
    """What the judgments of a complete artifact cost."""
    (path,) = artifact.paths(COST)
    return JudgingCost.model_validate_json(path.read_text(encoding="utf-8"))


def _summarise(_: Job[JudgeSpec], artifact: Artifact) -> Summary:
    verdicts = artifact.rows(VERDICTS, Verdict)
    cost = read_cost(artifact)
    num_questions = artifact.manifest.row_counts.rows_in
    num_judged = sum(verdict.preference is not None for verdict in verdicts)
    return {
        "num_questions": num_questions,
        "num_judged": num_judged,
        "coverage": num_judged / num_questions if num_questions else 0.0,
        **judge_figures(artifact.rows(SHOWINGS, JudgedShowing)),
        "num_calls": cost.num_calls,
        "num_cached": cost.num_cached,
        "usd": cost.usd,
    }


JUDGE = Stage(
    name="judge",
    description="Judge a model's answers to a benchmark against its baseline's.",
    version=1,
    image="train",  # a judge may be a reward model; most are servers: no GPU
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
    number_format=lambda job: judge_format(job.spec.judge, job.ports),
)
