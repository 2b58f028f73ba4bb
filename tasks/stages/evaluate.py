"""Stage evaluate: challenger against opponent on the same held-out prompts.

Every pair of answers is judged in both orders, which cancels position bias, or in one order drawn
at random (`tasks/stages/judge_pairs.py`). The interval is a prompt-clustered bootstrap over prompts
(`pvar.evaluation.paired`).

Ability questions are also held out, but not judged: the answers of both models are compared with
the accepted answers (`pvar.evaluation.ability`), as a metric besides the win rate.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pvar.artifacts import Recipe, ShardSpec, Summary
from pvar.evaluation.ability import ability_change, share_right
from pvar.evaluation.paired import paired_win_rate
from pvar.exam import conditions_digest, exam_digest
from pvar.identity import identity
from pvar.judge_config import JudgeConfig
from pvar.judging import JudgeBudget
from pvar.records import Comparison, Prompt, Response, Verdict
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact, read_document
from tasks.engine.stage import Job, Stage, Work
from tasks.engine.tables import JudgedShowing, by_prompt
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

ABILITY_FIGURES = (
    "ability", "opponent_ability",
    "ability_change", "ability_change_lower", "ability_change_upper",
)  # fmt: skip
"""Metrics of the summary, besides `num_ability_questions`; all None without ability questions. So
is `ability_lost_lower`: the lower end of the change if the challenger had no correct answer."""


class EvaluateSpec(BaseModel):
    """The settings that determine the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: JudgeConfig
    orders: Literal["both", "seeded"]
    confidence: float
    seed: int
    required_coverage: float = Field(exclude=True)
    """Minimum coverage. Below it the stage fails, and keeps its verdicts."""


def comparisons(job: Job[EvaluateSpec]) -> list[Comparison]:
    """The k-th answers of both models to a prompt: opponent first, challenger second."""
    opponent = by_prompt(job.inputs["opponent"].rows(RESPONSES, Response))
    challenger = by_prompt(job.inputs["challenger"].rows(RESPONSES, Response))
    return [
        Comparison(prompt.prompt_id, prompt.messages, theirs.text, ours.text)
        for prompt in _judged(held_out(job.inputs["prompts"]))
        for theirs, ours in zip(
            opponent.get(prompt.prompt_id, ()), challenger.get(prompt.prompt_id, ()), strict=False
        )
    ]


def held_out(prompts: Artifact) -> list[Prompt]:
    """The prompts of an artifact that are for evaluation, ability questions included."""
    return [prompt for prompt in prompts.rows(PROMPTS, Prompt) if prompt.split == "eval"]


def _judged(prompts: Sequence[Prompt]) -> list[Prompt]:
    return [prompt for prompt in prompts if not prompt.is_question]


@contextmanager
def _open_worker(job: Job[EvaluateSpec]) -> Iterator[Work]:
    folders = model_folders(job.spec.judge, job.ports)
    judge = job.ports.judge(
        judge_in_format(job.spec.judge, job.number_format), folders, job.runtime
    )

    def evaluate(_: ShardSpec, folder: Path) -> RowCounts:
        result = judge_pairs(
            judge,
            comparisons(job),
            cache=cache_of(judge, job.ports),
            budget=JudgeBudget(job.runtime.judge_max_calls, job.runtime.judge_max_usd),
            min_coverage=job.spec.required_coverage,
            orders=job.spec.orders,
            seed=job.spec.seed,
            progress=job.progress,
        )
        verdicts = result.final_verdicts()
        write_judgments(folder, result)
        missing = len(verdicts) - result.num_judged
        return RowCounts(
            rows_in=len(verdicts),
            rows_out=result.num_judged,
            rejected={"no_verdict": missing} if missing else {},
        )

    yield evaluate


def preferences(
    prompts: list[Prompt], verdicts: list[Verdict], num_answers: int
) -> NDArray[np.float64]:
    """Challenger's preference per prompt and answer, (num_prompts, num_answers); NaN is missing.

    Ability questions among the held-out `prompts` are left out, because they are not judged.
    """
    verdicts_of, judged = by_prompt(verdicts), _judged(prompts)
    table = np.full((len(judged), max(num_answers, 1)), np.nan)
    for row, prompt in enumerate(judged):
        for column, verdict in enumerate(verdicts_of.get(prompt.prompt_id, ())):
            if verdict.preference is not None:
                table[row, column] = verdict.preference
    return table


def all_preferences(prompts: list[Prompt], results: Artifact) -> NDArray[np.float64]:
    """As `preferences`, of all verdicts of a complete evaluate artifact."""
    verdicts = results.rows(VERDICTS, Verdict)
    most = max((len(rows) for rows in by_prompt(verdicts).values()), default=1)
    return preferences(prompts, verdicts, most)


def _summarise(job: Job[EvaluateSpec], artifact: Artifact) -> Summary:
    prompts = held_out(job.inputs["prompts"])
    answers = job.inputs["challenger"]
    made = read_document(answers.store, answers.keys.recipe, Recipe)
    result = paired_win_rate(
        all_preferences(prompts, artifact), confidence=job.spec.confidence, seed=job.spec.seed
    )
    return {
        "exam": exam_digest(prompts),
        "exam_conditions": conditions_digest(
            identity(job.spec.judge), job.spec.orders, made.identity if made else {}
        ),
        "win_rate": _number(result.win_rate),
        "win_rate_lower": _number(result.ci_lower),
        "win_rate_upper": _number(result.ci_upper),
        "num_judged": result.num_judged,
        "num_wanted": result.num_wanted,
        "coverage": result.coverage,
        **judge_figures(artifact.rows(SHOWINGS, JudgedShowing)),
        **_answers("challenger", job, prompts),
        **_answers("opponent", job, prompts),
        **_ability(job, [prompt for prompt in prompts if prompt.is_question]),
    }


def _answers(role: str, job: Job[EvaluateSpec], prompts: Sequence[Prompt]) -> Summary:
    """Lengths and truncation of the judged answers."""
    judged = {prompt.prompt_id for prompt in _judged(prompts)}
    answers = job.inputs[role].rows(RESPONSES, Response)
    responses = [answer for answer in answers if answer.prompt_id in judged]
    if not responses:
        return {f"{role}_mean_length_characters": None, f"{role}_ended_share": None}
    return {
        f"{role}_mean_length_characters": fmean(len(response.text) for response in responses),
        f"{role}_mean_length_tokens": fmean(response.num_tokens for response in responses),
        f"{role}_ended_share": fmean(response.finish_reason == "stop" for response in responses),
        f"{role}_repetition": fmean(repetition(response.text) for response in responses),
    }


def _ability(job: Job[EvaluateSpec], questions: Sequence[Prompt]) -> Summary:
    """Ability metrics of both models; all None if the source has no ability questions."""
    ours = _shares_right(job, "challenger", questions)
    theirs = _shares_right(job, "opponent", questions)
    change = partial(ability_change, confidence=job.spec.confidence, seed=job.spec.seed)
    *figures, num_questions = change(ours, theirs)
    lost = change(np.asarray(ours, dtype=np.float64) * 0, theirs)  # of the same questions
    return {
        **dict(zip(ABILITY_FIGURES, map(_number, figures), strict=True)),
        "ability_lost_lower": _number(lost.ci_lower),
        "num_ability_questions": num_questions if questions else None,
    }


def _shares_right(job: Job[EvaluateSpec], role: str, questions: Sequence[Prompt]) -> list[float]:
    answers = by_prompt(job.inputs[role].rows(RESPONSES, Response))
    return [
        share_right(
            [answer.text for answer in answers.get(question.prompt_id, ())],
            question.accepted_answers,
        )
        for question in questions
    ]


def repetition(text: str) -> float:
    """Fraction of a text's word 3-grams that occurred in it before, in [0, 1]."""
    words = text.split()
    grams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


EVALUATE = Stage(
    name="evaluate",
    description="Judge challenger against opponent on held-out prompts.",
    version=2,
    image="train",  # a judge may be a reward model; most are lexicons or servers: no GPU
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
    number_format=lambda job: judge_format(job.spec.judge, job.ports),
)
