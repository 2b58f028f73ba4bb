"""The results of a study: one row per arm, from what each of its trainings did.

Every model answers the same held-out prompts, and each is judged against the same opponent, so an
arm's advantage over the control is a difference over prompts and trainings
(`pvar.evaluation.trainings`). Prompts are joined by id; a prompt that lacks the verdict on any of
the compared models is left out.
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.evaluate_config import EvaluateConfig
from pvar.evaluation.method_verdict import MethodClaim, claim
from pvar.evaluation.trainings import MethodDifference, method_difference, method_mean
from pvar.study_config import HELD_OUT, Cell, StudyConfig, cells, control_of

FIGURES = (
    "num_distinct_pairs", "num_pairs", "num_steps", "num_tokens", "seconds", "kl",
    "mean_length_tokens", "ended_share", "repetition", "pvar_mean_selected",
)  # fmt: skip
"""Figures of a training that the table shows as means over trainings."""


class TrainingResult(NamedTuple):
    """One trained model of a study."""

    preferences: Mapping[str, Mapping[str, float]]
    """Endpoint → prompt id → preference for this model over the opponent or the benchmark's
    baseline, in [0, 1], mean over its answers. A prompt without a verdict is left out."""
    ability: Mapping[str, float]
    """Id of an ability question → share of right answers, in [0, 1]."""
    figures: Mapping[str, float | None]
    """The FIGURES; None is not known."""


class ArmRow(NamedTuple):
    """The result of an arm (at one value of a sweep)."""

    cell: str
    num_trainings: int
    """Trainings with a result."""
    num_planned: int
    win_rate: MethodDifference
    """Mean preference over the opponent, over prompts and trainings."""
    by_training: tuple[float, ...]
    """Win rate of each training."""
    ability_change: MethodDifference | None
    """Share of right answers minus the opponent's; None without ability questions."""
    over_control: MethodDifference | None
    """Win rate minus the control's, at the study's usual confidence; None for the control."""
    claim: MethodClaim | None
    """What the study says about that difference; None for the control, or without results."""
    figures: Mapping[str, float | None]
    """Means over trainings of the FIGURES; None where no training has one."""
    by_source: Mapping[str, MethodDifference]
    """`over_control` by the source of the held-out prompts. Descriptive: no interval allows for the
    number of sources. Empty for the control, for benchmarks, and where all prompts are of one."""


def tabulate(
    study: StudyConfig,
    results: Mapping[str, Sequence[TrainingResult]],
    start_ability: Mapping[str, Mapping[str, float]],
    endpoint: str = HELD_OUT,
    sources: Mapping[str, str] | None = None,
) -> list[ArmRow]:
    """One row per cell of the study that has a result, in their order, by one endpoint.

    `results` has the finished trainings of each cell; `start_ability` the opponent's share of
    right answers per ability question, of each cell; `sources` the source of each held-out prompt,
    by its id.
    """
    evaluate = study.pipeline.evaluate
    claimed = [cell for cell in cells(study) if control_of(study, cell) is not None]
    rows = []
    for cell in cells(study):
        runs = results.get(cell.name, ())
        if not runs:
            continue
        control = results.get(control_of(study, cell) or "", ())
        over, said, by_source = None, None, {}
        if control:
            arm, other = _tables([runs, control], endpoint)
            over = method_difference(arm, other, confidence=evaluate.confidence, seed=evaluate.seed)
            said = claim(
                arm, other, num_claims=len(claimed), delta=study.delta, width=study.width,
                seed=evaluate.seed,
            )  # fmt: skip
            if endpoint == HELD_OUT:
                by_source = _by_source(runs, control, sources or {}, evaluate)
        start = start_ability.get(cell.name, {})
        rows.append(_row(study, cell, runs, start, over, said, by_source, endpoint))
    return rows


def _row(
    study: StudyConfig,
    cell: Cell,
    runs: Sequence[TrainingResult],
    start_ability: Mapping[str, float],
    over: MethodDifference | None,
    said: MethodClaim | None,
    by_source: Mapping[str, MethodDifference],
    endpoint: str,
) -> ArmRow:
    evaluate = study.pipeline.evaluate
    (table,) = _tables([runs], endpoint)
    return ArmRow(
        cell.name,
        len(runs),
        len(study.seeds),
        method_mean(table, confidence=evaluate.confidence, seed=evaluate.seed),
        tuple(_mean(run.preferences.get(endpoint, {}).values()) for run in runs),
        _ability_change(runs, start_ability, evaluate.confidence, evaluate.seed),
        over,
        said,
        {name: _mean_figure(runs, name) for name in FIGURES},
        by_source,
    )


def _by_source(
    runs: Sequence[TrainingResult],
    control: Sequence[TrainingResult],
    sources: Mapping[str, str],
    evaluate: EvaluateConfig,
) -> dict[str, MethodDifference]:
    of_source: dict[str, set[str]] = {}
    for run in (*runs, *control):
        for prompt in run.preferences.get(HELD_OUT, {}):
            if prompt in sources:
                of_source.setdefault(sources[prompt], set()).add(prompt)
    if len(of_source) < 2:
        return {}
    tables = {
        name: _tables([runs, control], HELD_OUT, of_source[name]) for name in sorted(of_source)
    }
    return {
        name: method_difference(arm, other, confidence=evaluate.confidence, seed=evaluate.seed)
        for name, (arm, other) in tables.items()
    }


def _ability_change(
    runs: Sequence[TrainingResult], start: Mapping[str, float], confidence: float, seed: int
) -> MethodDifference | None:
    if not start:
        return None
    questions = sorted(start)
    arm = np.array([[run.ability.get(each, math.nan) for each in questions] for run in runs])
    before = np.tile([start[each] for each in questions], (len(runs), 1))
    return method_difference(arm, before, confidence=confidence, seed=seed)


def _tables(
    arms: Sequence[Sequence[TrainingResult]], endpoint: str, only: Container[str] | None = None
) -> list[NDArray[np.float64]]:
    """Preferences of each arm, (num_trainings, num_prompts); column i of all is the same prompt.

    With `only`, of these prompts.
    """
    found = [[run.preferences.get(endpoint, {}) for run in runs] for runs in arms]
    all_prompts = {prompt for runs in found for run in runs for prompt in run}
    prompts = sorted(prompt for prompt in all_prompts if only is None or prompt in only)
    return [
        np.array([[run.get(prompt, math.nan) for prompt in prompts] for run in runs]).reshape(
            len(runs), len(prompts)
        )
        for runs in found
    ]


def _mean_figure(runs: Sequence[TrainingResult], name: str) -> float | None:
    values = [value for run in runs if (value := run.figures.get(name)) is not None]
    return float(np.mean(values)) if values else None


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else math.nan
