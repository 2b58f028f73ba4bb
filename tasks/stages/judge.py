"""Stage judge: a model's answers to a benchmark against the baseline's answers.

AlpacaEval shows each pair once, in the published order; equal answers are a draw without a call.
Arena-Hard shows it in both orders. A thought that precedes an answer is not judged. A question
without an answer is not judged, and lowers the coverage.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pvar.artifacts import ShardSpec, Summary
from pvar.errors import BudgetError, JudgeError
from pvar.evaluation.arena_hard_judge import WITHOUT_OWN_ANSWER
from pvar.evaluation.benchmark_questions import CREATIVE_WRITING, BenchmarkQuestion
from pvar.judge_config import JudgeConfig
from pvar.judging import JudgeBudget, MeteredJudge
from pvar.judging_result import BUDGET_SPENT, JudgedPair, JudgingResult, Showing
from pvar.number_format import NumberFormat
from pvar.ports import Judge
from pvar.records import Comparison, Prompt, Response, Verdict
from pvar.reward_config import in_format, reward_format
from pvar.row_counts import RowCounts
from pvar.thought import without_thought
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import JudgedShowing, by_prompt, write_table
from tasks.stages.evaluate import SHOWINGS, VERDICTS, position_consistency
from tasks.stages.exam_questions import BASELINE
from tasks.stages.ingest import PROMPTS
from tasks.stages.judge_pairs import judge_pairs
from tasks.stages.sample import RESPONSES
from tasks.stages.score import model_folders
from tasks.stages.verdict_cache import VerdictCache

COST = "cost.json"

EQUAL_ANSWERS = Showing(is_swapped=False, preference=0.5, evidence="equal answers", reason=None)
"""AlpacaEval's verdict on two equal answers, without a call."""


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
        prompt_id: without_thought(rows[0].text) for prompt_id, rows in by_prompt(responses).items()
    }


def _number_format(job: Job[JudgeSpec]) -> NumberFormat | None:
    judge = job.spec.judge
    choice = reward_format(judge.reward_model) if judge.kind == "reward_model" else None
    return None if choice is None else job.ports.number_format(choice, learns=False)


def _judge_of(job: Job[JudgeSpec], *, is_creative: bool) -> Judge:
    judge = job.spec.judge
    if judge.kind == "reward_model":
        reward_model = in_format(judge.reward_model, job.number_format)
        judge = judge.model_copy(update={"reward_model": reward_model})
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
        verdicts = [pair.verdict for pair in result.pairs]
        write_table(folder / VERDICTS, verdicts, Verdict)
        write_table(
            folder / SHOWINGS,
            [
                JudgedShowing(pair.prompt_id, *showing)
                for pair in result.pairs
                for showing in pair.showings
            ],
            JudgedShowing,
        )
        cost = JudgingCost(num_calls=result.num_calls, num_cached=result.num_cached, usd=result.usd)
        (folder / COST).write_text(cost.model_dump_json(), encoding="utf-8")
        num_judged = sum(verdict.preference is not None for verdict in verdicts)
        rejected = {
            "no_answer": len(questions) - len(verdicts),
            "no_verdict": len(verdicts) - num_judged,
        }
        return RowCounts(
            rows_in=len(questions),
            rows_out=num_judged,
            rejected={reason: count for reason, count in rejected.items() if count},
        )

    yield judge


def _judged(
    job: Job[JudgeSpec], questions: Sequence[BenchmarkQuestion], answers: dict[str, str]
) -> JudgingResult:
    """Judge all answers within one budget. Raises below the required coverage."""
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
    total = _total(results)
    _refuse_uncovered(job, total, len(questions))
    return total


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
        cache=VerdictCache(job.ports.store) if isinstance(judge, MeteredJudge) else None,
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


def _total(results: Sequence[JudgingResult]) -> JudgingResult:
    costs = [result.usd for result in results]
    return JudgingResult(
        pairs=tuple(pair for result in results for pair in result.pairs),
        min_coverage=0.0,
        num_calls=sum(result.num_calls for result in results),
        num_cached=sum(result.num_cached for result in results),
        usd=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def _refuse_uncovered(job: Job[JudgeSpec], result: JudgingResult, num_questions: int) -> None:
    """Raise BudgetError or JudgeError if too few questions are judged. Verdicts are kept."""
    required = job.spec.required_coverage
    if result.num_judged >= required * num_questions:
        return
    no_answer = num_questions - len(result.pairs)
    stand = (
        f"{job.keys.root}: {result.num_judged} of {num_questions} questions are judged, and "
        f"promote.min_coverage requires {required:.1%} ({no_answer} have no answer; missing "
        f"verdicts: {result.missing or 'none'})"
    )
    if no_answer > (1 - required) * num_questions:
        raise JudgeError(f"{stand}; give answers to all questions")
    if BUDGET_SPENT in result.missing:
        raise BudgetError(
            f"{stand}; {result.num_calls} calls spent the judge's budget. Verdicts are kept: run "
            "again to continue, or raise runtime.judge_max_calls or runtime.judge_max_usd"
        )
    raise JudgeError(f"{stand}; run again to judge the missing ones")


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
        "position_consistency": position_consistency(artifact.rows(SHOWINGS, JudgedShowing)),
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
    number_format=_number_format,
)
