"""The report's section of benchmarks: both models, categories, and what is missing."""

import dataclasses
import re

from pvar.evaluation.benchmark_scores import BenchmarkDifference
from pvar.records import Message
from tasks.report.benchmark_report import BenchmarkAnswer, BenchmarkReport, BenchmarkSide
from tasks.report.data import ReportData
from tests.unit.tasks.report.test_page import ATTACK, Page, page, plain

EMPTY = ReportData(run_id="run-8", title="Demo", date="today")


def side(role: str, **changes: object) -> BenchmarkSide:
    given = BenchmarkSide(
        role=role,
        model=f"{role}-7b",
        category=None,
        score=61.2,
        ci_lower=55.5,
        ci_upper=67.8,
        length_controlled=None,
        style_controlled=None,
        mean_length=123.0,
        coverage=0.99,
        num_won=480,
        num_lost=300,
        difference=None,
    )
    return given._replace(**changes)  # type: ignore[arg-type]


def report(*sides: BenchmarkSide, **changes: object) -> BenchmarkReport:
    given = BenchmarkReport(
        name="arena",
        kind="arena_hard",
        judge="gpt-4.1",
        sides=sides,
        ungraded=None,
        not_measured=None,
        judge_check=None,
        answers=(),
    )
    return given._replace(**changes)  # type: ignore[arg-type]


def shown(*reports: BenchmarkReport) -> Page:
    return page(dataclasses.replace(EMPTY, benchmarks=reports))


def test_without_benchmarks_there_is_no_section() -> None:
    assert "benchmarks" not in page(EMPTY).text


def test_both_models_stand_beside_their_difference() -> None:
    difference = BenchmarkDifference(None, 11.5, 4.2, 18.8, 500)
    parsed = shown(report(side("new model", difference=difference), side("opponent", score=49.7)))
    assert "arena arena_hard, judged by gpt-4.1" in plain(parsed.text)
    new = parsed.after("new model new model-7b")
    assert new[:5] == ["61.2", "55.5 – 67.8", "480, 300", "123", "99 %"]
    assert new[5] == "11.5 (4.2 to 18.8)"
    assert parsed.after("opponent opponent-7b")[0] == "49.7"
    assert parsed.after("opponent opponent-7b")[5] == ""


def test_categories_follow_their_model() -> None:
    parsed = shown(report(side("new model"), side("new model", category="hard_prompt", score=70.0)))
    assert parsed.after("new model, hard_prompt")[0] == "70"


def test_controlled_scores_have_a_column_only_where_there_are_some() -> None:
    plain_one = shown(report(side("new model")))
    assert "controlled" not in plain_one.text
    both = shown(report(side("new model", length_controlled=50.5, style_controlled=52.5)))
    headers = [text for tag, text in both.cells if tag == "th"]
    assert {"Length-controlled", "Style-controlled"} <= set(headers)
    assert both.after("new model new model-7b")[2:4] == ["50.5", "52.5"]


def test_a_score_of_zero_is_a_number() -> None:
    """A model that loses every game and says nothing has a length- and style-controlled 0."""
    lost = side(
        "new model", score=0.0, length_controlled=0.0, style_controlled=0.0, mean_length=0.0
    )
    cells = shown(report(lost)).after("new model new model-7b")
    assert cells[0] == "0"
    assert cells[2:6] == ["0", "0", "480, 300", "0"]


def test_what_is_missing_is_said_to_be_missing() -> None:
    nothing = side(
        "new model",
        score=None,
        ci_lower=None,
        ci_upper=None,
        mean_length=None,
        num_won=None,
        num_lost=None,
        coverage=0.0,
        difference=BenchmarkDifference(None, None, None, None, 0),
    )
    parsed = shown(report(nothing, side("opponent")))
    cells = parsed.after("new model new model-7b")
    assert cells[:2] == ["missing", "missing – missing"]
    assert cells[2:4] == ["missing, missing", "missing"]
    assert cells[5] == "missing (missing to missing)"
    section = parsed.text.partition("What do the benchmarks say?")[2].partition("trusted")[0]
    assert "None" not in section
    assert not re.search(r"\bnan\b", section.lower())


def test_a_benchmark_that_was_not_measured_says_why_and_others_what_they_do_not_grade() -> None:
    parsed = shown(
        report(not_measured="no labelled pairs", kind="label_agreement", judge=None),
        report(side("new model"), ungraded="creative_writing"),
    )
    text = plain(parsed.text)
    assert "Not measured: no labelled pairs." in text
    assert "no baseline's answers were given: creative_writing." in text
    assert "label_agreement, judged" not in text


def test_answers_that_won_and_lost_are_shown_beside_the_baselines() -> None:
    asked = (Message("user", "Why is the sky blue?"),)
    answers = tuple(
        BenchmarkAnswer(asked, "Because.", answer, won)
        for answer, won in (("Rayleigh scattering.", True), ("", False))
    )
    text = plain(shown(report(side("new model"), answers=answers)).text)
    assert "Why is the sky blue? won" in text
    assert "Rayleigh scattering." in text
    assert "Why is the sky blue? lost" in text
    assert "an empty answer" in text


def test_untrusted_text_stays_text() -> None:
    attacked = report(
        side(ATTACK, model=ATTACK),
        side(ATTACK, category=ATTACK),
        name=ATTACK,
        kind=ATTACK,
        judge=ATTACK,
        ungraded=ATTACK,
        not_measured=ATTACK,
        answers=(BenchmarkAnswer((Message("user", ATTACK),), ATTACK, ATTACK, True),),
    )
    parsed = shown(attacked)
    assert not {"script", "img"} & {tag for tag, _ in parsed.tags}
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on")]
    assert parsed.text.count(ATTACK) == 12


def test_whether_the_judge_answers_as_before_is_said() -> None:
    parsed = shown(report(side("new model"), judge_check="The judge agrees with itself."))
    assert "The judge agrees with itself." in parsed.text
