"""Stage judge: a model's answers to a benchmark against the baseline's answers.

AlpacaEval shows each pair once, in the published order; equal answers are a draw without a call.
Arena-Hard shows it in both orders. A thought that precedes an answer is not judged. A question
without an answer is not judged, and lowers the coverage.

A judge that is a server is first compared with its earlier self (`drift_check.py`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress
from operator import not_
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pvar.artifacts import ShardSpec, Summary
from pvar.evaluation.arena_hard_judge import WITHOUT_OWN_ANSWER
from pvar.evaluation.benchmark_questions import CREATIVE_WRITING, BenchmarkQuestion
from pvar.judging import JudgeBudget
from pvar.judging_result import JudgedPair, JudgingResult, Showing, left_of, total_of
from pvar.ports import Judge
from pvar.records import Comparison, Prompt, Response, Verdict
from pvar.row_counts import RowCounts
from pvar.thought import without_thought
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import JudgedShowing, by_prompt
from tasks.stages.drift_check import begin_anchors, check_figures, check_judge, write_check
from tasks.stages.exam_questions import BASELINE
from tasks.stages.ingest import PROMPTS
from tasks.stages.judge_pairs import judge_pairs
from tasks.stages.judge_spec import JudgeSpec, QuestionGroup
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


class JudgingCost(BaseModel):
    """What the judgments cost this time. Verdicts from the cache were paid before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_calls: int
    """With those about anchors."""
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
    if is_creative:
        wording = job.spec.creative_instructions or WITHOUT_OWN_ANSWER.system
        judge = judge.model_copy(update={"instructions": wording})
    return job.ports.judge(judge, model_folders(job.spec.judge, job.ports), job.runtime)


@contextmanager
def _open_worker(job: Job[JudgeSpec]) -> Iterator[Work]:
    def judge(_: ShardSpec, folder: Path) -> RowCounts:
        questions = job.inputs["questions"].rows(BASELINE, BenchmarkQuestion)
        answers = answer_texts(job.inputs["answers"].rows(RESPONSES, Response))
        groups = _groups(job, questions, answers)
        budget = JudgeBudget(job.runtime.judge_max_calls, job.runtime.judge_max_usd)
        check = check_judge(job, groups, budget)
        budget = left_of(budget, check.cost)
        result = _with_unanswered(_judged(job, groups, budget), questions, answers)
        verdicts = result.final_verdicts()
        if check.is_first:
            check = begin_anchors(job, groups, result, left_of(budget, result))
        write_judgments(folder, result)
        write_check(folder, check)
        cost = total_of([result, check.cost], min_coverage=0.0)
        record = JudgingCost(num_calls=cost.num_calls, num_cached=result.num_cached, usd=cost.usd)
        (folder / COST).write_text(record.model_dump_json(), encoding="utf-8")
        missing = Counter(
            NO_ANSWER if verdict.reason == NO_ANSWER else "no_verdict"
            for verdict in verdicts
            if verdict.preference is None
        )
        return RowCounts(rows_in=len(verdicts), rows_out=result.num_judged, rejected=dict(missing))

    yield judge


def _groups(
    job: Job[JudgeSpec], questions: Sequence[BenchmarkQuestion], answers: Mapping[str, str]
) -> list[QuestionGroup]:
    """The answered questions, by the wording with which they are judged.

    Only arena_hard has two wordings: any other judge is opened once.
    """
    prompts = {each.prompt_id: each for each in job.inputs["questions"].rows(PROMPTS, Prompt)}
    has_draws = job.spec.orders == "seeded"
    has_wordings = job.spec.judge.kind == "arena_hard"
    groups = []
    for is_creative in (False, True):
        comparisons = [
            Comparison(
                row.prompt_id,
                prompts[row.prompt_id].messages,
                row.baseline_answer,
                answers[row.prompt_id],
            )
            for row in questions
            if (has_wordings and row.category == CREATIVE_WRITING) == is_creative
            and row.prompt_id in answers
        ]
        if comparisons:
            is_draw = [has_draws and each.first == each.second for each in comparisons]
            groups.append(
                QuestionGroup(
                    _judge_of(job, is_creative=is_creative),
                    is_creative,
                    tuple(compress(comparisons, map(not_, is_draw))),
                    tuple(compress(comparisons, is_draw)),
                )
            )
    return groups


def _judged(
    job: Job[JudgeSpec], groups: Sequence[QuestionGroup], budget: JudgeBudget
) -> JudgingResult:
    """Judge all groups within one budget."""
    results = []
    for group in groups:
        result = judge_pairs(
            group.judge,
            group.comparisons,
            cache=cache_of(group.judge, job.ports, epoch=job.spec.epoch),
            budget=budget,
            min_coverage=0.0,  # checked over all questions
            orders=job.spec.orders,
            progress=job.progress,
        )
        budget = left_of(budget, result)
        draws = (JudgedPair(each.prompt_id, (EQUAL_ANSWERS,)) for each in group.draws)
        results.append(replace(result, pairs=(*result.pairs, *draws)))
    return total_of(results, min_coverage=job.spec.required_coverage)


def _with_unanswered(
    result: JudgingResult, questions: Sequence[BenchmarkQuestion], answers: Mapping[str, str]
) -> JudgingResult:
    """The result with the questions that have no answer, and so no preference."""
    unanswered = (
        JudgedPair(row.prompt_id, (UNANSWERED,))
        for row in questions
        if row.prompt_id not in answers
    )
    return replace(result, pairs=(*result.pairs, *unanswered))


def read_cost(artifact: Artifact) -> JudgingCost:
    """What the judgments of a complete artifact cost."""
    (path,) = artifact.paths(COST)
    return JudgingCost.model_validate_json(path.read_text(encoding="utf-8"))


def _summarise(job: Job[JudgeSpec], artifact: Artifact) -> Summary:
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
        "judge_epoch": job.spec.epoch,
        **check_figures(artifact),
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
