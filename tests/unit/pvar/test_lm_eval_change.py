"""Change of ability by lm-evaluation-harness: paired by question, with numbers by hand."""

import math
from collections.abc import Mapping, Sequence

import pytest

from pvar.errors import ConfigError, InputError
from pvar.evaluation.lm_eval_change import (
    LmEvalChange,
    LmEvalResults,
    LmEvalTaskChange,
    lm_eval_change,
    lm_eval_scores,
    mean_change,
)
from pvar.evaluation.paired import paired_difference
from pvar.lm_eval_records import LmEvalAggregate, LmEvalSample

Values = Sequence[float | None]


def results(
    tasks: Mapping[str, Mapping[str, Values]],
    *,
    name: str | None = None,
    higher_is_better: bool | None = True,
    version: str = "1.0",
) -> LmEvalResults:
    """Task → `metric,filter` → value per question. The aggregates are the means."""
    samples, aggregates = [], []
    for task, metrics in tasks.items():
        for key, values in metrics.items():
            metric, _, label = key.partition(",")
            label = label or "none"
            known = [value for value in values if value is not None]
            samples += [
                LmEvalSample(name or task, task, row, metric, label, value, f"{task}-{row}")
                for row, value in enumerate(values)
            ]
            aggregates.append(
                LmEvalAggregate(
                    name=name or task,
                    task=task,
                    is_group=False,
                    metric=metric,
                    filter=label,
                    value=math.fsum(known) / len(known),
                    stderr=None,
                    higher_is_better=higher_is_better,
                    num_questions=len(values),
                    num_fewshot=0,
                    task_version=version,
                    harness_version="0.4.13",
                )
            )
    return LmEvalResults(samples, aggregates)


def change(ours: LmEvalResults, theirs: LmEvalResults, *metrics: str) -> LmEvalChange:
    return lm_eval_change(ours, theirs, metrics=metrics, confidence=0.95, seed=0)


def test_a_change_is_the_mean_difference_on_the_same_questions_in_points() -> None:
    ours = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    theirs = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    (row,) = change(results({"t": {"acc": ours}}), results({"t": {"acc": theirs}})).tasks
    # 6/8 and 3/8 correct: 75 and 37.5 percent. Differences 0, 1, 1, -1, 0, 1, 0, 1: mean 3/8.
    assert (row.score, row.opponent_score, row.change) == (75.0, 37.5, 37.5)
    interval = paired_difference(ours, theirs, confidence=0.95, seed=0)
    assert (row.ci_lower, row.ci_upper) == (100 * interval.ci_lower, 100 * interval.ci_upper)
    assert (row.name, row.metric, row.num_tasks, row.num_questions) == ("t", "acc,none", 1, 8)
    assert row.coverage == 1


def test_where_no_question_differs_the_interval_is_the_exact_one() -> None:
    same = results({"t": {"acc": [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]}})
    (row,) = change(same, same).tasks
    # All differences are 0, on [0, 1] all values are ½. With ε = 1 - 0.025^(1/10) = 0.30850 the
    # interval is ½ ± ε/2, and that of the differences ± ε.
    assert row.change == 0
    assert row.ci_lower == pytest.approx(-30.850, abs=1e-3)
    assert row.ci_upper == pytest.approx(30.850, abs=1e-3)


def test_the_mean_weights_names_alike_and_combines_their_intervals() -> None:
    def row(change: float, lower: float, upper: float, score: float) -> LmEvalTaskChange:
        return LmEvalTaskChange(
            "t", "acc,none", 1, 10, 1.0, score, score - change, change, lower, upper
        )

    mean = mean_change([row(6.0, 3.0, 10.0, 60.0), row(-2.0, -6.0, 1.0, 30.0)])
    # Mean (6 - 2) / 2 = 2. Below: √(3² + 4²) / 2 = 2.5; above: √(4² + 3²) / 2 = 2.5.
    assert (mean.change, mean.ci_lower, mean.ci_upper) == (2.0, -0.5, 4.5)
    # 60 and 30; their opponents' 54 and 32.
    assert (mean.score, mean.opponent_score, mean.num_names) == (45.0, 43.0, 2)


def test_the_mean_of_one_name_is_that_name() -> None:
    result = change(
        results({"t": {"acc": [1.0, 1.0, 0.0, 1.0, 1.0]}}),
        results({"t": {"acc": [0.0, 1.0, 0.0, 1.0, 0.0]}}),
    )
    (row,) = result.tasks
    assert result.mean.ci_lower == pytest.approx(row.ci_lower)
    assert result.mean.ci_upper == pytest.approx(row.ci_upper)


def test_tasks_of_a_group_are_pooled_by_question() -> None:
    ours = results({"a": {"acc": [1.0, 1.0, 1.0]}, "b": {"acc": [0.0]}}, name="group")
    theirs = results({"a": {"acc": [1.0, 0.0, 0.0]}, "b": {"acc": [1.0]}}, name="group")
    (row,) = change(ours, theirs).tasks
    # 3 of 4 and 2 of 4, whatever the tasks' sizes.
    assert (row.score, row.opponent_score, row.change) == (75.0, 50.0, 25.0)
    assert (row.name, row.num_tasks, row.num_questions) == ("group", 2, 4)


def test_a_question_without_a_value_is_left_out_of_both() -> None:
    ours = results({"t": {"acc": [1.0, None, 1.0, 0.0]}})
    theirs = results({"t": {"acc": [0.0, 1.0, 1.0, None]}})
    (row,) = change(ours, theirs).tasks
    # Questions 0 and 2: 2 of 2 and 1 of 2.
    assert (row.score, row.opponent_score, row.num_questions, row.coverage) == (100, 50, 2, 0.5)


@pytest.mark.parametrize(
    ("metrics", "chosen"),
    [
        ((), "acc_norm,none"),
        (("acc",), "acc,none"),
        (("exact_match,second", "acc"), "exact_match,second"),
        (("exact_match",), "exact_match,first"),
    ],
)
def test_the_metric_is_the_configured_one_else_by_rule(
    metrics: tuple[str, ...], chosen: str
) -> None:
    values = [1.0, 0.0]
    keys = ("other", "exact_match,first", "exact_match,second", "acc", "acc_norm")
    both = results({"t": dict.fromkeys(keys, values)})
    assert change(both, both, *metrics).tasks[0].metric == chosen


def test_a_metric_that_is_no_mean_of_shares_is_not_chosen_and_refused_by_name() -> None:
    points = results({"t": {"rouge": [40.0, 60.0], "f1": [0.5, 1.0]}})
    assert change(points, points).tasks[0].metric == "f1,none"
    with pytest.raises(ConfigError, match=r"metric rouge of lm_eval task t is not .*f1,none"):
        change(points, points, "rouge")
    loss = results({"t": {"brier": [0.5, 1.0]}}, higher_is_better=False)
    with pytest.raises(InputError, match="task t has no metric that is a mean over questions"):
        change(loss, loss)
    # The aggregate is the largest value, and not the mean.
    (row,) = results({"t": {"acc": [0.0, 1.0]}}).aggregates
    largest = results({"t": {"acc": [0.0, 1.0]}})._replace(aggregates=[row._replace(value=1.0)])
    with pytest.raises(InputError, match="task t has no metric"):
        change(largest, largest)


def test_a_metric_that_no_task_has_is_refused_with_those_that_there_are() -> None:
    both = results({"t": {"acc": [1.0, 0.0]}})
    with pytest.raises(ConfigError, match=r"metrics has f1, which no task .* have acc,none"):
        change(both, both, "f1")


def test_results_on_other_questions_are_refused() -> None:
    ours = results({"t": {"acc": [1.0, 0.0, 1.0]}})
    samples = [*ours.samples]
    samples[1] = samples[1]._replace(question_hash="another question")
    with pytest.raises(InputError, match=r"task t: 1 of 3 questions differ .* number 1\)"):
        change(ours, ours._replace(samples=samples))
    with pytest.raises(InputError, match="task t: 1 of 4 questions differ"):
        change(ours, results({"t": {"acc": [1.0, 0.0, 1.0, 0.0]}}))
    with pytest.raises(
        InputError, match=r"t \(t version 1\.0\), and the opponent's t \(t version 2"
    ):
        change(ours, results({"t": {"acc": [1.0, 0.0, 1.0]}}, version="2.0"))
    with pytest.raises(InputError, match="different tasks"):
        change(ours, results({"u": {"acc": [1.0, 0.0, 1.0]}}))


def test_a_score_of_one_model_has_its_own_interval() -> None:
    one = results({"t": {"acc": [1.0] * 9}, "u": {"acc": [1.0, None, 0.0]}})
    first, second = lm_eval_scores(one, confidence=0.95, seed=0)
    # 9 of 9 correct: the lower end is Clopper and Pearson's, 0.025^(1/9) = 0.66373.
    assert (first.score, first.ci_upper) == (100, 100)
    assert first.ci_lower == pytest.approx(66.373, abs=1e-3)
    assert (second.score, second.num_questions) == (50, 2)
