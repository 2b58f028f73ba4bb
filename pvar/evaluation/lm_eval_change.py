"""Change of ability between two models, from the results of lm-evaluation-harness by question.

Each configured name (a task, or a group or tag of tasks) has one score: the mean of a metric over
its questions, in percent. Tasks of a group are pooled, so that each question counts the same; the
harness does so, too, for groups that it weights by size.

**Metric.** A metric can be compared if it is a mean over questions of values in [0, 1], and higher
is better. The first of these is used, for each task: the configured `metrics` in their order, then
acc_norm, acc, exact_match, then the task's own first metric. Where a metric was computed with
several filters, the task's first filter is used unless the configuration names another.

**Intervals.** The question is the sampling unit, as the prompt is in `pvar.evaluation.paired`: the
change is the mean of the differences on the same questions, with its BCa bootstrap interval. The
mean over the names weights each name the same, whatever its number of questions. Its interval
combines those of the names, whose questions are different and so independent, by the method of
variance estimates recovery (Zou & Donner, Statistics in Medicine 27, 2008): with the mean m = Σ mᵢ
/ n and the intervals [lᵢ, uᵢ], from m − √Σ(mᵢ − lᵢ)² / n to m + √Σ(uᵢ − mᵢ)² / n. With one name it
is the interval of that name. The names are fixed: the interval says nothing about other tasks.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvar.errors import ConfigError, InputError
from pvar.evaluation.paired import mean_interval, paired_difference
from pvar.lm_eval_records import LmEvalAggregate, LmEvalSample

PREFERRED = ("acc_norm", "acc", "exact_match")
"""Metrics in the order in which they are chosen."""

TOLERANCE = 1e-9
"""Largest difference of the mean over questions from the harness's aggregate."""

COMPARABLE = "a mean over questions of values in [0, 1] of which higher is better"
"""What a metric must be."""

Floats = NDArray[np.float64]


class MetricKey(NamedTuple):
    """A metric with its filter."""

    metric: str
    filter: str

    def __str__(self) -> str:
        return f"{self.metric},{self.filter}"


class LmEvalResults(NamedTuple):
    """All results of one model."""

    samples: Sequence[LmEvalSample]
    aggregates: Sequence[LmEvalAggregate]


class LmEvalScore(NamedTuple):
    """One model's score on one configured name, in percent."""

    name: str
    metric: str
    """`metric,filter`; several are separated by spaces if the tasks of a group differ."""
    num_tasks: int
    num_questions: int
    """Questions with a value."""
    score: float
    ci_lower: float
    ci_upper: float


class LmEvalTaskChange(NamedTuple):
    """Challenger against opponent on one configured name: percent, and points of change."""

    name: str
    metric: str
    """`metric,filter`; several are separated by spaces if the tasks of a group differ."""
    num_tasks: int
    num_questions: int
    """Questions with a value for both models."""
    coverage: float
    """Fraction of the questions that have a value for both models."""
    score: float
    """The challenger's, over these questions."""
    opponent_score: float
    change: float
    """Challenger minus opponent, in points."""
    ci_lower: float
    ci_upper: float


class LmEvalMean(NamedTuple):
    """The mean over the configured names, each weighted the same."""

    num_names: int
    score: float
    """The challenger's, in percent."""
    opponent_score: float
    change: float
    """In points."""
    ci_lower: float
    ci_upper: float


class LmEvalChange(NamedTuple):
    """The changes by name, and their mean."""

    tasks: tuple[LmEvalTaskChange, ...]
    mean: LmEvalMean


class _TaskRows(NamedTuple):
    """One task's rows by metric."""

    values: dict[MetricKey, dict[int, LmEvalSample]]
    """Metric → number of the question → row."""
    aggregates: dict[MetricKey, LmEvalAggregate]


def lm_eval_scores(
    results: LmEvalResults, *, metrics: Sequence[str] = (), confidence: float, seed: int
) -> tuple[LmEvalScore, ...]:
    """One model's score by name, in the order of the results.

    Raises ConfigError if one of `metrics` cannot be compared or no task has it, InputError if a
    task has no metric that can be compared.
    """
    names = _by_name(results)
    chosen = _chosen_metrics([names], metrics)
    scores = []
    for name, tasks in names.items():
        rows = [row for task in tasks for row in tasks[task].values[chosen[name, task]].values()]
        values = np.array([row.value for row in rows if row.value is not None])
        interval = mean_interval(values, confidence=confidence, num_resamples=10_000, seed=seed)
        scores.append(
            LmEvalScore(
                name=name,
                metric=_labels([chosen[name, task] for task in tasks]),
                num_tasks=len(tasks),
                num_questions=values.size,
                score=100 * float(values.mean()) if values.size else math.nan,
                ci_lower=100 * interval.lower,
                ci_upper=100 * interval.upper,
            )
        )
    return tuple(scores)


def lm_eval_change(
    challenger: LmEvalResults,
    opponent: LmEvalResults,
    *,
    metrics: Sequence[str] = (),
    confidence: float,
    seed: int,
) -> LmEvalChange:
    """Paired change by name, and its mean over the names, with intervals over questions.

    A question without a value for either model is left out and lowers the coverage. Raises
    InputError if the two did not answer the same questions or a task has no metric that can be
    compared, ConfigError if one of `metrics` cannot be compared or no task has it.
    """
    ours, theirs = _by_name(challenger), _by_name(opponent)
    _refuse_other_tasks(ours, theirs)
    chosen = _chosen_metrics([ours, theirs], metrics)
    changes = []
    for name, tasks in ours.items():
        keys = [chosen[name, task] for task in tasks]
        pairs = np.array(
            [
                pair
                for task, key in zip(tasks, keys, strict=True)
                for pair in _paired_values(
                    task, tasks[task].values[key], theirs[name][task].values[key]
                )
            ]
        )
        changes.append(_task_change(name, _labels(keys), len(tasks), pairs, confidence, seed))
    return LmEvalChange(tuple(changes), mean_change(changes))


def mean_change(changes: Sequence[LmEvalTaskChange]) -> LmEvalMean:
    """The mean over the names, with the interval of the module's docstring; NaN if one is NaN."""
    num = len(changes)
    change = sum(row.change for row in changes) / num
    below = math.sqrt(sum((row.change - row.ci_lower) ** 2 for row in changes)) / num
    above = math.sqrt(sum((row.ci_upper - row.change) ** 2 for row in changes)) / num
    return LmEvalMean(
        num_names=num,
        score=sum(row.score for row in changes) / num,
        opponent_score=sum(row.opponent_score for row in changes) / num,
        change=change,
        ci_lower=change - below,
        ci_upper=change + above,
    )


def _by_name(results: LmEvalResults) -> dict[str, dict[str, _TaskRows]]:
    """Configured name → task → its rows, in the order of the results."""
    names: dict[str, dict[str, _TaskRows]] = {}
    for sample in results.samples:
        task = names.setdefault(sample.name, {}).setdefault(sample.task, _TaskRows({}, {}))
        key = MetricKey(sample.metric, sample.filter)
        task.values.setdefault(key, {})[sample.doc_id] = sample
    for row in results.aggregates:
        if row.task in names.get(row.name, {}):
            names[row.name][row.task].aggregates[MetricKey(row.metric, row.filter)] = row
    return names


def _can_be_compared(task: _TaskRows, key: MetricKey) -> bool:
    """Whether a metric is a mean over questions of values in [0, 1], and higher is better."""
    aggregate = task.aggregates.get(key)
    values = [row.value for row in task.values[key].values() if row.value is not None]
    return (
        aggregate is not None
        and aggregate.value is not None
        and aggregate.higher_is_better is not False
        and bool(values)
        and min(values) >= 0
        and max(values) <= 1
        and abs(aggregate.value - math.fsum(values) / len(values)) <= TOLERANCE
    )


def _chosen_metrics(
    models: Sequence[dict[str, dict[str, _TaskRows]]], metrics: Sequence[str]
) -> dict[tuple[str, str], MetricKey]:
    """The metric of each name and task, which can be compared for all models."""
    chosen = {}
    present: set[MetricKey] = set()
    for name, tasks in models[0].items():
        for task, rows in tasks.items():
            usable = [
                key
                for key in rows.values
                if all(
                    key in model[name][task].values and _can_be_compared(model[name][task], key)
                    for model in models
                )
            ]
            present |= rows.values.keys()
            for wanted in metrics:
                _refuse_unusable(task, wanted, rows.values, usable)
            chosen[name, task] = _choice(task, usable, metrics)
    if unused := [wanted for wanted in metrics if not any(_is(key, wanted) for key in present)]:
        raise ConfigError(
            f"metrics has {_listed(unused)}, which no task of the benchmark has; its tasks have "
            f"{_listed(sorted(present))}"
        )
    return chosen


def _refuse_unusable(
    task: str, wanted: str, present: Iterable[MetricKey], usable: Sequence[MetricKey]
) -> None:
    has_it = any(_is(key, wanted) for key in present)
    if has_it and not any(_is(key, wanted) for key in usable):
        raise ConfigError(
            f"metric {wanted} of lm_eval task {task} is not {COMPARABLE}; use one of "
            f"{_listed(usable)}"
        )


def _choice(task: str, usable: Sequence[MetricKey], metrics: Sequence[str]) -> MetricKey:
    for wanted in (*metrics, *PREFERRED):
        for key in usable:
            if _is(key, wanted):
                return key
    if not usable:
        raise InputError(
            f"lm_eval task {task} has no metric that is {COMPARABLE}; remove it from the "
            "benchmark's tasks"
        )
    return usable[0]


def _is(key: MetricKey, wanted: str) -> bool:
    return wanted in (key.metric, str(key))


def _paired_values(
    task: str, ours: dict[int, LmEvalSample], theirs: dict[int, LmEvalSample]
) -> list[tuple[float, float]]:
    """Both models' values by question; NaN is undefined."""
    different = ours.keys() ^ theirs.keys() | {
        number
        for number in ours.keys() & theirs.keys()
        if ours[number].question_hash != theirs[number].question_hash
    }
    if different:
        raise InputError(
            f"lm_eval task {task}: {len(different)} of {len(ours.keys() | theirs.keys())} "
            f"questions differ between the two models' results (the first is number "
            f"{min(different)}), so the two runs read different data of the task; delete the older "
            "artifact of stage harness and run again"
        )
    return [(_value(ours[number]), _value(theirs[number])) for number in sorted(ours)]


def _value(row: LmEvalSample) -> float:
    return math.nan if row.value is None else row.value


def _refuse_other_tasks(
    ours: dict[str, dict[str, _TaskRows]], theirs: dict[str, dict[str, _TaskRows]]
) -> None:
    """InputError if names, tasks or versions of tasks differ."""
    here, there = ([_versions(name, names[name]) for name in names] for names in (ours, theirs))
    if different := [row for row in here if row not in there]:
        raise InputError(
            f"the two models' results have different tasks: the challenger's have "
            f"{_listed(different)}, and the opponent's {_listed(there)}; run both with the same "
            "version of lm-evaluation-harness (delete the older artifact of stage harness)"
        )


def _versions(name: str, tasks: dict[str, _TaskRows]) -> str:
    """`name (task version 1.0, …)`."""
    versions = []
    for task, rows in sorted(tasks.items()):
        found = {row.task_version for row in rows.aggregates.values()}
        versions.append(f"{task} version {'/'.join(sorted(found))}")
    return f"{name} ({', '.join(versions)})"


def _task_change(
    name: str, metric: str, num_tasks: int, pairs: Floats, confidence: float, seed: int
) -> LmEvalTaskChange:
    """`pairs` are (num_questions, 2): challenger's and opponent's values; NaN is undefined."""
    ours, theirs = pairs[:, 0], pairs[:, 1]
    difference = paired_difference(ours, theirs, confidence=confidence, seed=seed)
    both = ~np.isnan(ours + theirs)
    return LmEvalTaskChange(
        name=name,
        metric=metric,
        num_tasks=num_tasks,
        num_questions=difference.num_judged,
        coverage=difference.coverage,
        score=100 * float(ours[both].mean()) if both.any() else math.nan,
        opponent_score=100 * float(theirs[both].mean()) if both.any() else math.nan,
        change=100 * difference.difference,
        ci_lower=100 * difference.ci_lower,
        ci_upper=100 * difference.ci_upper,
    )


def _labels(keys: Sequence[MetricKey]) -> str:
    return " ".join(dict.fromkeys(str(key) for key in keys))


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values) or "none"
