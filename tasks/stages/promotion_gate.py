"""What the gate of a promotion looks at: figures of earlier stages, and the look at the exam."""

import logging
import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from pvar.artifacts import Summary
from pvar.evaluate_config import PromoteConfig
from pvar.evaluation.alpha_spending import mean_lower_bound
from pvar.evaluation.paired import prompt_means
from pvar.exam import exam_digest
from pvar.gate import GateDecision, GateFigures, decide_promotion, with_stand_ins
from pvar.ports import Store
from pvar.references import ModelReference
from tasks.engine.artifact import Artifact
from tasks.engine.stage import Job
from tasks.stages.divergence import NOT_FINITE
from tasks.stages.evaluate import all_preferences, held_out
from tasks.stages.exam_looks import ExamLook, look_at

logger = logging.getLogger(__name__)

BENCHMARK_INPUT = "benchmark-"
"""Prefix of the inputs that are the scores of benchmarks; the rest is the benchmark's name."""
FIRST_RESULTS = "first-results"
"""Input: the comparison with the first model."""
FIRST_DIVERGENCE = "first-divergence"
"""Input with `promote.max_total_divergence`: the divergence from the first model."""
EXAM_PROMPTS = "prompts"
"""Input with `promote.alpha_budget`: the artifact of the exam's prompts."""


class PromoteSpec(BaseModel):
    """The settings that determine the promotion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: PromoteConfig
    strategy: str
    budget: str
    opponent: ModelReference
    """The model that the new model was compared with."""
    first: ModelReference | None = None
    """The first model, if the new model was compared with it, too."""
    stand_ins: tuple[str, ...] = Field(default=(), exclude=True)
    """What the results rest on that is no real model (`pvar/stand_ins.py`), for the note."""


def apply_gate(
    summary: Summary,
    benchmarks: Mapping[str, Summary],
    gate: PromoteConfig,
    first: Summary | None = None,
    at_look: float | None = None,
    from_first: Summary | None = None,
) -> GateDecision:
    """The decision on the figures of stage evaluate, of the benchmarks by their names, of the
    comparison with the first model, if there was one, on the win rate's lower bound at the level of
    the look at the exam, if it has a budget, and on the divergence from the first model, if it was
    estimated."""
    figures = GateFigures(
        win_rate_lower=figure_of(summary.get("win_rate_lower")),
        coverage=figure_of(summary.get("coverage")),
        ended_share=figure_of(summary.get("challenger_ended_share")),
        ability_change_lower=(
            figure_of(summary.get("ability_change_lower")) if has_questions(summary) else None
        ),
        ability_lost_lower=_lost_lower(summary),
        win_rate_lower_at_look=at_look,
        total_ability_change_lower=(
            None if first is None else figure_of(first.get("ability_change_lower"))
        ),
        total_ability_lost_lower=math.nan if first is None else _lost_lower(first),
        total_divergence_upper=(
            None if from_first is None else figure_of(from_first.get("kl_upper"))
        ),
        benchmark_differences={
            name: figure_of(figures.get("difference_lower")) for name, figures in benchmarks.items()
        },
        opponent_scores={
            name: figure_of(figures.get("opponent_score")) for name, figures in benchmarks.items()
        },
    )
    return decide_promotion(figures, gate)


def _lost_lower(summary: Summary) -> float:
    """Lower end of the change of ability if all were lost; NaN if it is not known.

    Results of earlier versions do not have it: there it is at most minus the opponent's ability.
    """
    lower = figure_of(summary.get("ability_lost_lower"))
    return 0 - figure_of(summary.get("opponent_ability")) if math.isnan(lower) else lower


def has_questions(summary: Summary) -> bool:
    """Whether the exam has ability questions."""
    return summary.get("num_ability_questions") is not None


def figure_of(value: float | int | str | bool | None) -> float:
    """A figure of a summary; NaN if it is missing."""
    return float(value) if isinstance(value, int | float) else math.nan


def look_of(
    results: Artifact, prompts: Artifact | None, gate: PromoteConfig, store: Store
) -> ExamLook | None:
    """The look at the exam that these results are. A new one is counted.

    None if promotion is switched off, or if results that an earlier version made do not name their
    exam and `prompts`, the exam's artifact, is not given.
    """
    exam = results.manifest.summary.get("exam")
    if exam is None and prompts is not None:
        exam = exam_digest(held_out(prompts))
    if exam is None or gate.mode == "never":
        return None
    number = look_at(store, gate.model_name, str(exam), results.keys.root)
    return ExamLook(number=number, exam=str(exam), budget=gate.alpha_budget)


def lower_at_look(
    results: Artifact, prompts: Artifact | None, look: ExamLook | None
) -> float | None:
    """The win rate's lower bound at the level of a look; None without a budget."""
    if look is None or look.level is None or prompts is None:
        return None
    table = all_preferences(held_out(prompts), results)
    return mean_lower_bound(prompt_means(table), look.level)


def summary_of(job: Job[PromoteSpec], name: str) -> Summary | None:
    """The figures of an input; None if the job has no such input."""
    artifact = job.inputs.get(name)
    return None if artifact is None else artifact.manifest.summary


def first_divergence(artifact: Artifact, min_coverage: float) -> Summary:
    """The divergence from the first model as the gate reads it.

    Its upper bound is missing where too few answers have a divergence, or one of them is infinite:
    the estimate is over the others.
    """
    counts, summary = artifact.manifest.row_counts, artifact.manifest.summary
    num_infinite = counts.rejected.get(NOT_FINITE, 0)
    if not num_infinite and counts.rows_out >= min_coverage * counts.rows_in:
        return summary
    logger.warning(
        "%s: the divergence from the first model is no evidence: of %d answers %d have one, and "
        "that of %d is infinite",
        artifact.keys.root,
        counts.rows_in,
        counts.rows_out,
        num_infinite,
    )
    return {**summary, "kl_upper": None}


def benchmark_figures(job: Job[PromoteSpec]) -> dict[str, Summary]:
    """The figures of the benchmarks, by their names."""
    return {
        name.removeprefix(BENCHMARK_INPUT): artifact.manifest.summary
        for name, artifact in job.inputs.items()
        if name.startswith(BENCHMARK_INPUT)
    }


def gate_decision(job: Job[PromoteSpec]) -> tuple[GateDecision, ExamLook | None]:
    """The gate's decision, and the look at the exam that it is."""
    gate, results, prompts = job.spec.gate, job.inputs["results"], job.inputs.get(EXAM_PROMPTS)
    divergence = job.inputs.get(FIRST_DIVERGENCE)
    look = look_of(results, prompts, gate, job.ports.store)
    at_look = lower_at_look(results, prompts, look)
    decision = apply_gate(
        results.manifest.summary,
        benchmark_figures(job),
        gate,
        summary_of(job, FIRST_RESULTS),
        at_look,
        None if divergence is None else first_divergence(divergence, gate.min_coverage),
    )
    return with_stand_ins(decision, job.spec.stand_ins), look
