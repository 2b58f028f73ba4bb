"""Differences of two models on a benchmark, derived by hand."""

import pytest

from pvar.evaluation.benchmark_scores import (
    BenchmarkDifference,
    QuestionResult,
    benchmark_difference,
    known_number,
    unjudged_score,
)

Result = float | None


def results(role: str, *values: tuple[Result, float] | Result) -> list[QuestionResult]:
    """Results on the questions q0, q1, …: (value, weight), or a value of weight 1."""
    rows = []
    for number, given in enumerate(values):
        value, weight = given if isinstance(given, tuple) else (given, 1.0)
        rows.append(QuestionResult(role, f"q{number}", None, value, weight, 10))
    return rows


def difference(ours: list[QuestionResult], theirs: list[QuestionResult]) -> BenchmarkDifference:
    return benchmark_difference(ours, theirs, category=None, seed=0)


def test_the_difference_is_in_percentage_points_over_questions() -> None:
    # (1 − ½ + ½ − 0 + 0 − ½) / 3 = 1/6.
    found = difference(results("challenger", 1.0, 0.5, 0.0), results("opponent", 0.5, 0.0, 0.5))
    assert found.difference == pytest.approx(100 / 6)
    assert found.num_questions == 3
    assert found.ci_lower is not None
    assert found.ci_upper is not None
    assert -100 <= found.ci_lower < 100 / 6 < found.ci_upper <= 100


def test_a_question_that_one_model_lacks_counts_for_neither() -> None:
    # Both have q0 and q3: ((1 − 0) + (0 − ½)) / 2 = ¼.
    found = difference(
        results("challenger", 1.0, 1.0, None, 0.0), results("opponent", 0.0, None, 0.0, 0.5)
    )
    assert (found.difference, found.num_questions) == (pytest.approx(25.0), 2)


def test_rows_are_joined_by_question_and_not_by_place() -> None:
    ours, theirs = results("challenger", 1.0, 0.0, 0.5), results("opponent", 1.0, 0.0, 0.5)
    found = difference(ours, theirs[::-1])
    assert found.difference == 0
    # All differences are 0: 1 − 0.025^(1/3) = 0.70760 of the questions could be otherwise.
    assert (found.ci_lower, found.ci_upper) == pytest.approx((-70.760, 70.760), abs=1e-3)


def test_big_wins_weigh_three_times_in_each_models_own_mean() -> None:
    # Two games each. Ours: a big win in both games of q0 (6 of 6), two plain losses of q1 (0 of 2):
    # 6/8. Theirs: two plain wins of q0 (2 of 2), a big loss in both games of q1 (0 of 6): 2/8.
    found = difference(
        results("challenger", (1.0, 6.0), (0.0, 2.0)), results("opponent", (1.0, 2.0), (0.0, 6.0))
    )
    assert found.difference == pytest.approx(50.0)


def test_without_a_common_question_the_difference_is_missing() -> None:
    found = difference(results("challenger", 1.0, None), results("opponent", None, 1.0))
    assert found == BenchmarkDifference(None, None, None, None, 0)
    assert difference([], []) == BenchmarkDifference(None, None, None, None, 0)


def test_the_category_is_only_a_name() -> None:
    found = benchmark_difference(
        results("challenger", 1.0), results("opponent", 0.0), category="hard_prompt", seed=0
    )
    # One question of difference 1: the lower end is 1 − 2·(1 − 0.025) = −0.95.
    assert found.category == "hard_prompt"
    assert (found.difference, found.ci_lower, found.ci_upper) == pytest.approx((100.0, -95, 100))


def test_a_score_without_a_judge_has_no_lengths_and_its_own_coverage() -> None:
    score = unjudged_score(
        role="challenger",
        model="m",
        category=None,
        score=60.0,
        num_questions=4,
        num_judged=3,
        interval=(40.0, 80.0),
    )
    assert (score.clustered_ci_lower, score.clustered_ci_upper) == (40.0, 80.0)
    assert (score.ci_lower, score.ci_upper) == (40.0, 80.0)
    assert (score.coverage, score.mean_length_characters) == (0.75, None)
    none = unjudged_score(
        role="x", model="m", category=None, score=None, num_questions=0, num_judged=0
    )
    assert (none.ci_lower, none.score, none.coverage) == (None, None, 0.0)


def test_a_missing_number_is_missing() -> None:
    assert known_number(float("nan")) is None
    assert known_number(0.0) == 0.0
