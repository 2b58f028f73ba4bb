import dataclasses

import numpy as np
import pytest

from tasks.report.data import (
    AnswerFigures,
    Evaluation,
    Failure,
    Gate,
    GateCheck,
    PvarDistribution,
    ReportData,
    RewardScale,
    StageRow,
    WaitingStage,
)
from tasks.report.text import (
    duration,
    exact_percent,
    headline,
    lead,
    number,
    percent,
    refusal,
    remarks,
)
from tasks.stages.evaluate import ABILITY_FIGURES

RESULT = Evaluation(
    win_rate=0.712,
    ci_lower=0.658,
    ci_upper=0.764,
    confidence=0.95,
    num_judged=83,
    num_wanted=83,
    judge="AFINN",
    opponent="the model it started from",
    challenger_answers=AnswerFigures(50.0, 0.8),
    opponent_answers=AnswerFigures(50.0, 0.8),
)
NOTHING = ReportData(run_id="run-7", title="Demo", date="today")


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def texts(data: ReportData, tone: str) -> str:
    return plain(" ".join(remark.text for remark in remarks(data) if remark.tone == tone))


def test_the_headline_of_a_promotion():
    data = dataclasses.replace(NOTHING, evaluation=RESULT, gate=Gate(True, ()))
    assert headline(data).tone == "good"
    assert plain(headline(data).sentence) == (
        "Promoted: the new model wins 71 % (66–76 %) of 83 held-out prompts against "
        "the model it started from."
    )


def test_the_headline_of_a_refusal():
    data = dataclasses.replace(NOTHING, evaluation=RESULT, gate=Gate(False, ()))
    assert headline(data).tone == "bad"
    assert headline(data).sentence.startswith("Not promoted: the new model wins")


def test_a_run_without_a_gate_is_not_decided():
    sentence = headline(dataclasses.replace(NOTHING, evaluation=RESULT)).sentence
    assert sentence.startswith("Not decided: the new model wins")


def test_a_run_that_stopped_says_how_far_it_came():
    stages = (
        StageRow("ingest", "ingest", "ingest/ab"),
        StageRow("score-vader", "score", "score/cd"),
        StageRow("select", "select", None),
    )
    data = dataclasses.replace(NOTHING, stages=stages)
    assert headline(data).sentence == (
        "No verdict: the run ends after score-vader; nothing was evaluated."
    )


def test_a_run_that_waits_says_for_what_and_how_it_goes_on():
    waiting = WaitingStage("approval of pvar version 3", "pvar approve pvar 3 --note TEXT")
    data = dataclasses.replace(
        NOTHING, evaluation=RESULT, gate=Gate(False, (), waits=True), waiting=waiting
    )
    assert headline(data).tone == "neutral"
    assert headline(data).sentence.startswith(
        "Waiting for approval of pvar version 3: the new model wins"
    )
    assert lead(data) == "To go on: pvar approve pvar 3 --note TEXT."


def test_a_failure_comes_before_everything_else():
    failure = Failure("train", "the loss is NaN\nlower the learning rate")
    data = dataclasses.replace(NOTHING, evaluation=RESULT, gate=Gate(True, ()), failure=failure)
    assert headline(data).sentence == "Failed in train: the loss is NaN"
    interrupted = dataclasses.replace(data, failure=Failure("train", "go on", was_interrupted=True))
    assert headline(interrupted) == ("Interrupted", "bad", "Interrupted in train: go on")


@pytest.mark.parametrize("rate", [None, float("nan")])
def test_a_missing_win_rate_is_not_a_lost_one(rate: float | None):
    result = dataclasses.replace(RESULT, win_rate=rate, num_judged=0)
    data = dataclasses.replace(NOTHING, evaluation=result, gate=Gate(False, ()))
    assert headline(data).sentence == "Not promoted: none of 83 held-out prompts has a verdict."


def test_a_missing_end_leaves_the_interval_out():
    data = dataclasses.replace(NOTHING, evaluation=dataclasses.replace(RESULT, ci_lower=None))
    assert "wins 71 % of 83" in plain(headline(data).sentence)
    assert "no interval" in texts(data, "bad")


def test_a_refusal_names_the_checks_that_failed_and_the_note():
    checks = (
        GateCheck("lower end, above", 0.4949, 0.5, False),
        GateCheck("coverage, at least", None, 0.95, False),
        GateCheck("ended", 0.9, 0.5, True),
        GateCheck("divergence (nats), at most", 12.52, 12.5, False, is_share=False),
    )
    assert plain(refusal(Gate(False, checks, "Promotion is switched off."))) == (
        "Not met: lower end, above 50 % (it is 49.49 %); coverage, at least 95 % (it is missing); "
        "divergence (nats), at most 12.5 (it is 12.52). Promotion is switched off."
    )
    assert refusal(Gate(True, checks[2:3], "note")) == ""


@pytest.mark.parametrize(
    ("lower", "upper", "tone", "says"),
    [(0.501, 0.6, "good", "above even"), (0.5, 0.6, "bad", "chance"), (0.3, 0.4, "bad", "worse")],
)
def test_the_interval_is_read_against_even(lower: float, upper: float, tone: str, says: str):
    result = dataclasses.replace(RESULT, ci_lower=lower, ci_upper=upper)
    assert says in texts(dataclasses.replace(NOTHING, evaluation=result), tone)


def test_a_good_result_has_nothing_held_against_it():
    assert texts(dataclasses.replace(NOTHING, evaluation=RESULT), "bad") == ""


def test_what_weakens_a_result_is_pointed_out():
    result = dataclasses.replace(RESULT, num_judged=80, challenger_answers=AnswerFigures(75.0, 0.5))
    against = texts(dataclasses.replace(NOTHING, evaluation=result), "bad")
    assert "Only 80 of 83" in against
    assert "50 % longer" in against  # 75 tokens against 50
    assert "50 % of the new answers are not truncated, 80 % before" in against


def test_missing_lengths_and_endings_are_not_compared():
    result = dataclasses.replace(RESULT, opponent_answers=AnswerFigures(None, float("nan")))
    told = [remark.text for remark in remarks(dataclasses.replace(NOTHING, evaluation=result))]
    assert len(told) == 3  # the interval, the coverage, and that ability is not measured


def with_ability(*figures: float | None, num_questions: int | None = 40) -> ReportData:
    summary = dict(zip(ABILITY_FIGURES, figures, strict=True))
    row = StageRow(
        "evaluate",
        "evaluate",
        "evaluate/ef",
        figures={**summary, "num_ability_questions": num_questions},
    )
    return dataclasses.replace(NOTHING, evaluation=RESULT, stages=(row,))


@pytest.mark.parametrize(
    ("figures", "tone", "says"),
    [
        ((0.5, 0.7, -0.2, -0.35, -0.06), "bad", "Ability fell: 50 % of 40 questions are answered "
         "right, 70 % before: −20 points (−35 to −6)."),
        ((0.7, 0.725, -0.025, -0.1, 0.05), "neutral", "can be chance: 70 % of 40 questions"),
        ((0.7, 0.7, 0.0, -0.088, 0.088), "neutral", "70 % before: 0 points (−9 to +9)."),
        ((0.8, 0.7, 0.1, 0.02, 0.2), "good", "Ability rose: 80 %"),
    ],
)  # fmt: skip
def test_a_change_of_ability_is_told_with_its_interval(
    figures: tuple[float, ...], tone: str, says: str
):
    assert says in texts(with_ability(*figures), tone)


def test_ability_that_was_not_measured_is_told_and_never_a_zero():
    nothing = [None] * 5
    none_asked = with_ability(*nothing, num_questions=None)
    none_answered = with_ability(*nothing, num_questions=0)
    assert "Ability not measured: no ability questions." in texts(none_asked, "neutral")
    assert "No ability question was answered" in texts(none_answered, "bad")


def test_saturation_and_ties_at_the_cut_are_pointed_out():
    pvar = PvarDistribution(
        pvar=np.array([0.25, 0.25]),
        selected=np.array([True, False]),
        cut=0.25,
        strategy="top",
        num_tied_at_cut=2,
        scales=(RewardScale("small", 1.0, 0.1), RewardScale("large", 1.0, 0.4)),
    )
    against = texts(dataclasses.replace(NOTHING, distribution=pvar), "bad")
    assert "40 % of the response pairs are saturated under large" in against
    assert "small" not in against
    assert "2 prompts tie at the cut" in against
    alone = dataclasses.replace(pvar, num_tied_at_cut=1, scales=())
    assert remarks(dataclasses.replace(NOTHING, distribution=alone)) == []


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.004, "0.4 %"), (0.996, "99.6 %"), (0.655, "66 %")],
)
def test_a_share_is_only_called_none_or_all_when_it_is(share: float, text: str):
    assert plain(percent(share)) == text


def test_a_value_just_under_its_bound_does_not_look_like_it():
    assert plain(exact_percent(0.9496)) == "94.96 %"
    assert plain(exact_percent(0.95)) == "95 %"
    assert plain(exact_percent(0.0)) == "0 %"
    assert plain(exact_percent(1.0)) == "100 %"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3780, "1 h 3 min"),
    ],
)
def test_durations_read_like_speech(seconds: float, text: str):
    assert plain(duration(seconds)) == text


def test_negative_numbers_have_a_real_minus_sign():
    assert number(-0.12345) == "−0.123"


def test_a_circular_judge_is_told_and_any_other_is_not() -> None:
    sentence = "The judge (vader) is also a reward model of the selection."
    circular = dataclasses.replace(RESULT, circularity=sentence)
    told = [each.text for each in remarks(dataclasses.replace(NOTHING, evaluation=circular))]
    not_told = [each.text for each in remarks(dataclasses.replace(NOTHING, evaluation=RESULT))]
    assert sentence in told
    assert told != not_told
    assert sentence not in not_told


def test_a_reward_model_that_was_refused_is_named_with_the_reasons() -> None:
    def told(**figures: bool | str | None) -> list[tuple[str, str]]:
        stage = StageRow("adopt", "adopt", "adopt/ab12", figures=figures)
        found = remarks(dataclasses.replace(NOTHING, stages=(stage,)))
        return [(remark.tone, remark.text) for remark in found]

    reason = "accuracy on 40 new held-out labels is 0.600"
    assert told(adopted=False, reasons=reason) == [
        ("bad", f"The reward model was not adopted: {reason}.")
    ]
    ((tone, text),) = told(adopted=True, reasons=None)
    assert (tone, "scores from the next run on" in text) == ("good", True)
    assert told() == []  # the run did not reach it
