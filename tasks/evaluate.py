"""Stage evaluate: challenger against opponent on the same held-out prompts.

Every pair of answers is shown to the judge in both orders, which cancels position bias; the prompt's
preference is the mean. The interval is a prompt-clustered bootstrap (`pvar.evaluation.paired`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import numpy as np
from pydantic import BaseModel, ConfigDict

from pvar.accounts import Accounts
from pvar.artifacts import ShardSpec, Summary
from pvar.config import JudgeConfig
from pvar.evaluation.paired import paired_win_rate
from pvar.records import Comparison, Prompt, Response, Verdict
from tasks.artifact import Artifact
from tasks.ingest import PROMPTS
from tasks.sample import RESPONSES
from tasks.stage import Job, Stage, Work
from tasks.tables import by_prompt, write_table

VERDICTS = "verdicts.parquet"


class EvaluateSpec(BaseModel):
    """What decides the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: JudgeConfig
    confidence: float
    seed: int


def comparisons(job: Job[EvaluateSpec]) -> list[Comparison]:
    """The k-th answers of both models to a prompt: opponent first, challenger second."""
    prompts = [
        prompt for prompt in job.inputs["prompts"].rows(PROMPTS, Prompt) if prompt.split == "eval"
    ]
    opponent = by_prompt(job.inputs["opponent"].rows(RESPONSES, Response))
    challenger = by_prompt(job.inputs["challenger"].rows(RESPONSES, Response))
    return [
        Comparison(prompt.prompt_id, prompt.messages, theirs.text, ours.text)
        for prompt in prompts
        for theirs, ours in zip(
            opponent.get(prompt.prompt_id, ()), challenger.get(prompt.prompt_id, ()), strict=False
        )
    ]


@contextmanager
def _open_worker(job: Job[EvaluateSpec]) -> Iterator[Work]:
    judge = job.ports.judge(job.spec.judge)

    def evaluate(_: ShardSpec, folder: Path) -> Accounts:
        wanted = comparisons(job)
        swapped = [each._replace(first=each.second, second=each.first) for each in wanted]
        verdicts = [
            _merge(straight, turned)
            for straight, turned in zip(judge.judge(wanted), judge.judge(swapped), strict=True)
        ]
        write_table(folder / VERDICTS, verdicts, Verdict)
        missing = sum(each.preference is None for each in verdicts)
        return Accounts(
            rows_in=len(wanted),
            rows_out=len(wanted) - missing,
            rejected={"no_verdict": missing} if missing else {},
        )

    yield evaluate


def _merge(straight: Verdict, turned: Verdict) -> Verdict:
    """Mean of both orders, as the challenger's probability of being better."""
    if straight.preference is None or turned.preference is None:
        return straight._replace(preference=None, reason=straight.reason or turned.reason)
    return straight._replace(preference=(straight.preference + 1 - turned.preference) / 2)


def preferences(
    prompts: list[Prompt], verdicts: list[Verdict], num_answers: int
) -> "np.typing.NDArray[np.float64]":
    """Challenger's preference per prompt and answer, (num_prompts, num_answers); NaN is missing."""
    judged = by_prompt(verdicts)
    table = np.full((len(prompts), max(num_answers, 1)), np.nan)
    for row, prompt in enumerate(prompts):
        for column, verdict in enumerate(judged.get(prompt.prompt_id, ())):
            if verdict.preference is not None:
                table[row, column] = verdict.preference
    return table


def _summarise(job: Job[EvaluateSpec], artifact: Artifact) -> Summary:
    prompts = [
        prompt for prompt in job.inputs["prompts"].rows(PROMPTS, Prompt) if prompt.split == "eval"
    ]
    verdicts = artifact.rows(VERDICTS, Verdict)
    most = max((len(rows) for rows in by_prompt(verdicts).values()), default=1)
    result = paired_win_rate(
        preferences(prompts, verdicts, most), confidence=job.spec.confidence, seed=job.spec.seed
    )
    return {
        "win_rate": _number(result.win_rate),
        "win_rate_lower": _number(result.ci_lower),
        "win_rate_upper": _number(result.ci_upper),
        "num_judged": result.num_judged,
        "num_wanted": result.num_wanted,
        "coverage": result.coverage,
        **_answers("challenger", job),
        **_answers("opponent", job),
    }


def _answers(role: str, job: Job[EvaluateSpec]) -> Summary:
    responses = job.inputs[role].rows(RESPONSES, Response)
    if not responses:
        return {f"{role}_mean_length_characters": None, f"{role}_ended_share": None}
    return {
        f"{role}_mean_length_characters": fmean(len(each.text) for each in responses),
        f"{role}_mean_length_tokens": fmean(each.num_tokens for each in responses),
        f"{role}_ended_share": fmean(each.finish_reason == "stop" for each in responses),
        f"{role}_repetition": fmean(repetition(each.text) for each in responses),
    }


def repetition(text: str) -> float:
    """Share of a text's word 3-grams that occurred in it before, in [0, 1]."""
    words = text.split()
    grams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


EVALUATE = Stage(
    name="evaluate",
    version=1,
    plan=lambda _: (ShardSpec(index=0, start=0, stop=0),),
    open_worker=_open_worker,
    summarise=_summarise,
)
