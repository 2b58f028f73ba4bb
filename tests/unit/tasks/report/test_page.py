import dataclasses
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from pvar.records import Message
from tasks.engine.tables import TrainStep
from tasks.report.data import (
    AnswerFigures,
    AnswerSample,
    Counts,
    Evaluation,
    ExamCurve,
    ExamExclusions,
    ExamPoint,
    Failure,
    Gate,
    GateCheck,
    LabelRow,
    MachineRow,
    NamedLink,
    PromptExample,
    PvarDistribution,
    ReportData,
    RewardScale,
    ScoredResponse,
    Setting,
    SourceRow,
    SourceWinRate,
    StageRow,
    StoredFile,
)
from tasks.report.page import render_report

ATTACK = "</td></style><script>alert('x')</script>\u2028<img src=x onerror=alert(1)>&amp;\"'"
VOID_TAGS = {"br", "meta"}
CELL_TAGS = {"td", "th", "dt", "dd", "h1"}


def asked(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


FULL = ReportData(
    run_id="run-7",
    title="Demo",
    date="23 November 2026",
    settings=(Setting("select.strategy", "bottom"),),
    stages=(
        StageRow(
            "ingest",
            "ingest",
            "ingest/ab12",
            rows_in=1208,
            rows_out=1203,
            rejected={"near_duplicate": 3, "empty_prompt": 2},
            seconds=30.0,
            reused=True,
            figures={"num_eval": 83, "mean_words": None},
        ),
        StageRow("train", "train", "train/cd34", 58, 58, seconds=60.0, reused=False),
        StageRow("promote", "promote", None),
    ),
    distribution=PvarDistribution(
        pvar=np.array([0.01, 0.2, np.nan]),
        selected=np.array([False, True, False]),
        cut=0.2,
        strategy="top",
        num_tied_at_cut=1,
        scales=(RewardScale("vader", 1.5, 0.07),),
        exams=(ExamExclusions("alpaca_eval", 12), ExamExclusions("arena_hard", 0)),
    ),
    highest=(
        PromptExample(
            asked("Review the hotel."),
            pvar=0.2,
            selected=True,
            responses=(
                ScoredResponse("It was bad.", -3.0, "rejected"),
                ScoredResponse("unjudged", None),
                ScoredResponse("It was great.", 1.0, "chosen"),
                ScoredResponse("It was fine.", 0.0),
            ),
        ),
    ),
    lowest=(PromptExample(asked("Count to two."), 0.01, False, (ScoredResponse(" ", 0.5),)),),
    steps=tuple(
        TrainStep(number, 0.5, 0.7 / number, 0.1, 0.5, 0.1, 0.0, 2.0, 1e-4) for number in (1, 2, 3)
    ),
    evaluation=Evaluation(
        win_rate=0.712,
        ci_lower=0.658,
        ci_upper=0.764,
        confidence=0.95,
        num_judged=83,
        num_wanted=83,
        judge="AFINN",
        opponent="the model it started from",
        challenger_answers=AnswerFigures(55.5, 0.61),
        opponent_answers=AnswerFigures(50.25, 0.64),
        counts=Counts(won=54, tied=10, lost=19),
    ),
    samples=tuple(
        AnswerSample(asked(f"Question {number}"), f"before {number}", f"after {number}", preference)
        for number, preference in enumerate([1.0, 0.5, 0.0, None, 1.0, 1.0, 0.0, 1.0])
    ),
    gate=Gate(
        True,
        (
            GateCheck("lower end of the win rate, above", 0.658, 0.5, True),
            GateCheck("upper end of the divergence (nats), at most", 7.25, 12.5, True, False),
        ),
    ),
    exam_curve=ExamCurve(
        "3fa2",
        True,
        (ExamPoint(1, 0.55, 0.5, 0.6, 0.7), ExamPoint(4, 0.633, 0.58, 0.69, None)),
    ),
    links=(
        NamedLink("MLflow run", "http://localhost:5000/#/runs/1?a=1&b=2"),
        NamedLink("Artifacts", "s3://bucket/root"),
    ),
)
EMPTY = ReportData(run_id="run-8", title="Demo", date="today")
UNKNOWN = dataclasses.replace(
    FULL,
    stages=(StageRow("ingest", "ingest", "ingest/ab12"),),
    distribution=PvarDistribution(
        np.array([np.nan]), np.array([False]), None, "random", None, (RewardScale("r", None, None),)
    ),
    highest=(PromptExample(asked("?"), None, True, (ScoredResponse("!", float("inf")),)),),
    lowest=(PromptExample((), float("nan"), True, ()),),
    steps=(TrainStep(1, *[float("nan")] * 8),),
    evaluation=Evaluation(
        None,
        None,
        float("nan"),
        0.95,
        0,
        5,
        "AFINN",
        "champion version 3",
        AnswerFigures(None, None),
        AnswerFigures(float("nan"), None),
    ),
    gate=Gate(False, (GateCheck("win rate", None, None, False),)),
    exam_curve=ExamCurve(
        "3fa2", False, (ExamPoint(1, None, None, None, None), ExamPoint(2, *[float("nan")] * 4))
    ),
)


class Page(HTMLParser):
    """What a browser makes of the page: its tags, its text, and the cells of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.cells: list[tuple[str, str]] = []
        """Tag and text, in the order in which they begin."""
        self._open: list[str] = []
        self._open_cells: list[int] = []
        self.feed(html)
        self.close()
        assert self._open == [], "tags that nothing closes"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self._open.append(tag)
        if tag in CELL_TAGS:
            self._open_cells.append(len(self.cells))
            self.cells.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "tags that cross"
        if tag in CELL_TAGS:
            self._open_cells.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if self._open_cells:
            cell = self._open_cells[-1]
            tag, text = self.cells[cell]
            self.cells[cell] = (tag, text + data)

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]

    def headline(self) -> str:
        return next(plain(text) for tag, text in self.cells if tag == "h1")

    def after(self, header: str, tag: str = "th") -> list[str]:
        """The cells that follow the one of that tag that begins with `header`."""
        found = (
            place
            for place, (kind, text) in enumerate(self.cells)
            if kind == tag and plain(text).startswith(header)
        )
        return [plain(text) for _, text in self.cells[next(found) + 1 :]]


def plain(text: str) -> str:
    """With every run of white space, no-break spaces included, as one space."""
    return " ".join(text.split())


def page(data: ReportData) -> Page:
    return Page(render_report(data))


@pytest.fixture(scope="module")
def full() -> Page:
    """The page of FULL, drawn once."""
    return page(FULL)


@pytest.mark.parametrize("data", [FULL, EMPTY, UNKNOWN], ids=["full", "empty", "unknown"])
def test_the_page_is_well_formed_and_complete_in_itself(data: ReportData):
    html = render_report(data)
    parsed = Page(html)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert "src" not in {name for _, attrs in parsed.tags for name in attrs}
    given = {link.target for link in data.links}
    assert all(href in given or href.startswith("#") for href in parsed.attributes("href"))
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    policy = next(each for each in parsed.attributes("content") if "default-src" in each)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


@pytest.mark.parametrize("data", [FULL, EMPTY, UNKNOWN], ids=["full", "empty", "unknown"])
def test_a_screen_reader_finds_its_way(data: ReportData):
    parsed = page(data)
    ids = Counter(parsed.attributes("id"))
    assert max(ids.values()) == 1
    assert set(parsed.attributes("aria-labelledby")) <= set(ids)
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in parsed.tags if tag == "th")
    assert all(attrs.get("aria-label") for tag, attrs in parsed.tags if tag == "svg")
    assert ("html", {"lang": "en"}) in parsed.tags


def test_the_headline_and_the_key_figures_come_first(full: Page):
    assert full.headline() == (
        "Promoted: the new model wins 71 % (66–76 %) of 83 held-out prompts against the model "
        "it started from."
    )
    assert full.after("Promoted", "h1")[:10] == [
        *("Win rate", "71 % (66–76 %)"),
        *("Gate", "promoted 2 of 2 checks passed"),
        *("Training prompts", "3 1 selected"),
        *("PVar cut", "0.2 strategy top"),
        *("Time", "1 min 30 s all stages of this run"),
    ]


def test_a_stage_shows_its_rows_its_reasons_its_time_and_its_figures(full: Page):
    ingest = full.after("ingestingest/ab12")
    assert ingest[0] == "1 208 → 1 203 3 near duplicate2 empty prompt figures"
    assert ingest[1:5] == ["num_eval", "83", "mean_words", "missing"]
    assert ingest[5] == "30 s reused"
    assert full.after("train")[:2] == ["58 → 58", "1 min 0 s"]
    assert full.after("promote")[0] == "not reached"


def test_the_files_of_a_stage_are_linked_and_many_are_counted(full: Page):
    files = tuple(
        StoredFile(f"file:///store/{number}.parquet", "shards/rows.parquet", 16, 2048)
        for number in range(23)
    )
    model = (StoredFile("s3://bucket/model.safetensors", "model.safetensors", None, 5),)
    stages = (
        StageRow("sample", "sample", "sample/ab", files=files),
        StageRow("train", "train", "train/cd", files=model),
    )
    shown = page(dataclasses.replace(EMPTY, stages=stages))
    linked = [attrs["href"] for tag, attrs in shown.tags if tag == "a"]
    assert linked == [file.target for file in files[:20]]
    text = plain(shown.text)
    assert "shards/rows.parquet 16 rows, 2 048 bytes" in text
    assert "and 3 more" in text
    assert "s3://bucket/model.safetensors 5 bytes" in text


def test_hardware_and_versions_are_shown_by_stage(full: Page):
    machines = (
        MachineRow(("ingest", "sample"), "2 CPUs", {"Python": "3.11.9", "torch": "2.9"}),
        MachineRow(("train",), "1 × <card>", {}),
        MachineRow(("promote",), None, {}),
    )
    shown = page(dataclasses.replace(EMPTY, machines=machines))
    assert shown.after("ingest, sample")[:2] == ["2 CPUs", "Python 3.11.9, torch 2.9"]
    assert shown.after("train")[0] == "1 × <card>"
    assert shown.after("promote")[:2] == ["missing", "missing"]
    assert "Hardware" not in full.text


def test_every_exam_says_how_many_prompts_it_left_out(full: Page):
    assert full.after("Prompts left out because they are in alpaca_eval")[0] == "12"
    assert full.after("Prompts left out because they are in arena_hard")[0] == "0"
    assert "left out" not in page(UNKNOWN).text


def test_each_source_shows_its_selection_and_its_win_rate():
    rows = (
        SourceRow("web", 1200, 700, 0.12, SourceWinRate(0.6, 0.5, 0.7, 80)),
        SourceRow("<mail>", 3, 0, None, None),
    )
    shown = page(dataclasses.replace(FULL, sources=rows))
    assert shown.after("web")[:4] == ["1 200", "700", "0.12", "60 % (50 % to 70 %) of 80"]
    assert shown.after("<mail>")[:4] == ["3", "0", "missing", "not judged"]
    assert "By source" not in page(FULL).text


def test_agreement_with_labels_is_shown_by_model_and_source():
    rows = (
        LabelRow("rm-large", "source <web>", 0.6, 0.5, 0.7, 1200, 3),
        LabelRow("judge gpt", "annotator 7", None, None, None, 0, 40),
    )
    shown = page(dataclasses.replace(FULL, labels=rows))
    assert shown.after("rm-large")[:5] == ["source <web>", "60 %", "50 % to 70 %", "1 200", "3"]
    assert shown.after("judge gpt")[:3] == ["annotator 7", "missing", "missing to missing"]
    assert "labels of the data" not in page(FULL).text


def test_times_are_drawn_against_the_longest_stage(full: Page):
    widths = [style for style in full.attributes("style") if style.startswith("width")]
    assert widths == ["width:50.0%", "width:100.0%"]


def test_the_evaluation_shows_both_models(full: Page):
    assert full.after("Mean answer length")[:2] == ["55.5", "50.2"]
    assert full.after("Answers not truncated")[:2] == ["61 %", "64 %"]
    assert full.after("Prompts with a verdict")[0] == "83 of 83"
    assert "54 won, 10 tied, 19 lost" in plain(full.text)


def test_ability_stands_beside_the_win_rate_or_is_said_to_be_missing(full: Page):
    figures = {
        "ability": 0.62,
        "opponent_ability": 0.65,
        "ability_change": -0.03,
        "ability_change_lower": -0.12,
        "ability_change_upper": 0.06,
        "num_ability_questions": 40,
    }
    evaluated = StageRow("evaluate", "evaluate", "evaluate/ef56", figures=figures)
    measured = page(dataclasses.replace(FULL, stages=(evaluated,)))
    change = "−3 points (−12 to +6)"
    assert measured.after("Win rate", "dt")[1:3] == ["Ability", f"62 % {change}"]
    row = "Change of ability over 40 questions"
    assert measured.after("Ability")[:4] == ["62 %", "65 %", row, change]
    assert full.after("Ability")[0] == "not measured"


def test_versions_on_one_exam_are_a_curve_that_says_what_they_are_compared_with(full: Page):
    assert full.after("Version")[3:11] == [
        *("1", "55 %", "50 % – 60 %", "70 %"),
        *("4", "63.3 %", "58 % – 69 %", "missing"),
    ]
    assert "All are compared with the first model" in plain(full.text)
    assert any("Versions 1 to 4 on one exam" in label for label in full.attributes("aria-label"))
    steps = page(UNKNOWN)
    assert "these win rates are steps and not a level" in plain(steps.text)
    assert not any("Versions" in label for label in steps.attributes("aria-label"))
    assert "version to version" not in page(EMPTY).text


def test_the_gate_shows_each_check_beside_its_bound(full: Page):
    assert full.after("lower end")[:3] == ["65.8 %", "50 %", "passed"]
    assert full.after("upper end of the div")[:3] == ["7.25", "12.5", "passed"]
    refused = Gate(
        False, (GateCheck("coverage, at least", 0.9496, 0.95, False),), "It is switched off."
    )
    parsed = page(dataclasses.replace(FULL, gate=refused))
    assert parsed.after("coverage")[:2] == ["94.96 %", "95 %"]
    assert "Not met: coverage, at least 95 % (it is 94.96 %)." in plain(parsed.text)
    assert "It is switched off." in parsed.text


def test_the_selection_shows_scale_and_saturation(full: Page):
    assert full.after("PVar at the cut")[0] == "0.2"
    assert full.after("Reward scale τ of vader")[0] == "1.5"
    assert full.after("Saturated response pairs of vader")[0] == "7 %"
    assert page(UNKNOWN).after("PVar at the cut")[0] == "no cut"


def test_responses_are_listed_by_reward_and_those_without_come_last(full: Page):
    responses = full.after("Response")[:8]
    assert responses == [
        "1.00 chosen",
        "It was great.",
        "0.00",
        "It was fine.",
        "−3.00 rejected",
        "It was bad.",
        "missing",
        "unjudged",
    ]


def test_the_dots_of_all_examples_share_one_axis(full: Page):
    dots = [attrs for tag, attrs in full.tags if tag == "i"]
    # Rewards −3, 1, 0 and 0.5 on an axis from −3 to 1; the missing one has no dot.
    assert [dot["style"] for dot in dots] == [
        "left:0.0%",
        "left:100.0%",
        "left:75.0%",
        "left:87.5%",
    ]
    assert [dot["class"] for dot in dots] == ["rejected", "chosen", "", ""]


def test_samples_show_both_answers_and_the_verdict_and_the_rest_is_folded():
    html = render_report(FULL)
    text = plain(Page(html).text.replace("Before", " Before ").replace("After", " After "))
    for number, verdict in enumerate(["new answer won", "tie", "new answer lost", "no verdict"]):
        shown = f"Question {number} {verdict} Before before {number} After after {number}"
        assert shown in text
    assert html.index("after 5") < html.index("2 more answers") < html.index("before 6")


def test_an_empty_answer_is_said_to_be_one(full: Page):
    assert full.after("0.50", "td")[0] == "an empty answer"


def test_a_conversation_shows_who_speaks():
    messages = (Message("system", "Be brief."), Message("user", "Hello"))
    sample = AnswerSample(messages, "a", "b", 1.0)
    text = plain(page(dataclasses.replace(EMPTY, samples=(sample,))).text)
    assert "systemBe brief. userHello" in text


def test_only_web_addresses_are_clickable():
    links = (*FULL.links, NamedLink("Trap", "javascript:alert(1)"))
    parsed = page(dataclasses.replace(FULL, links=links))
    clickable = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    assert clickable == ["http://localhost:5000/#/runs/1?a=1&b=2"]
    assert parsed.after("Artifacts")[0] == "s3://bucket/root"
    assert parsed.after("Trap")[0].startswith("javascript:alert(1)")


def test_untrusted_text_stays_text_wherever_it_appears():
    attacked = ReportData(
        run_id=ATTACK,
        title=ATTACK,
        date=ATTACK,
        settings=(Setting(ATTACK, ATTACK),),
        stages=(
            StageRow(
                ATTACK,
                ATTACK,
                ATTACK,
                1,
                0,
                {ATTACK: 1},
                1.0,
                False,
                {ATTACK: ATTACK, "n": 1},
                files=(StoredFile(ATTACK, ATTACK, None, 1),),
            ),
        ),
        distribution=PvarDistribution(
            np.array([0.1]), np.array([True]), 0.1, ATTACK, 1, (RewardScale(ATTACK, 1.0, 0.9),)
        ),
        highest=(PromptExample(asked(ATTACK), 0.1, True, (ScoredResponse(ATTACK, 1.0),)),),
        evaluation=dataclasses.replace(FULL.evaluation, judge=ATTACK, opponent=ATTACK),
        samples=(AnswerSample(asked(ATTACK), ATTACK, ATTACK, 1.0),),
        gate=Gate(False, (GateCheck(ATTACK, 0.1, 0.2, False),), ATTACK),
        links=(NamedLink(ATTACK, f"https://{ATTACK}"), NamedLink(ATTACK, ATTACK)),
        failure=Failure(ATTACK, ATTACK),
        stand_ins=(ATTACK,),
        machines=(MachineRow((ATTACK,), ATTACK, {ATTACK: ATTACK}),),
    )
    parsed = page(attacked)
    assert not {"script", "img"} & {tag for tag, _ in parsed.tags}
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on")]
    # Each of the places above, some of them more than once; rule names lose their underscores.
    assert parsed.text.count(ATTACK) >= 36


def test_text_that_no_file_can_hold_is_replaced():
    sample = AnswerSample(asked("half a \ud83d pair"), "a\x00b\x1b[31m", "kept\ttab\nline", None)
    html = render_report(dataclasses.replace(EMPTY, samples=(sample,)))
    html.encode("utf-8")
    assert "half a � pair" in html
    assert "a�b�[31m" in html
    assert "kept\ttab\nline" in html


def test_the_same_data_gives_the_same_bytes():
    assert render_report(FULL).encode() == render_report(FULL).encode()


MISSING = {
    "settings": "No setting differs from the defaults.",
    "stages": "No stage is on record.",
    "distribution": "This run has no selection.",
    "steps": "This run has no training steps.",
    "evaluation": "This run has no evaluation.",
    "samples": "This run has no sample answers.",
    "gate": "This run has no decision of the gate.",
    "links": "No links are on record.",
}


def test_all_that_is_missing_is_said_to_be(full: Page):
    empty = page(EMPTY)
    assert [part for part, says in MISSING.items() if says not in empty.text] == []
    assert [part for part, says in MISSING.items() if says in full.text] == []


@pytest.mark.parametrize("part", MISSING)
def test_each_part_can_be_missing_alone(part: str):
    untrained = dataclasses.replace(FULL, steps=())
    text = page(dataclasses.replace(untrained, **{part: getattr(EMPTY, part)})).text
    assert {name for name, says in MISSING.items() if says in text} == {part, "steps"}


def test_missing_numbers_are_never_zero():
    parsed = page(UNKNOWN)
    assert parsed.after("Mean answer length")[:2] == ["missing", "missing"]
    assert parsed.after("Answers not truncated")[:2] == ["missing", "missing"]
    assert parsed.after("win rate")[:3] == ["missing", "missing", "failed"]
    assert parsed.after("ingest")[:2] == ["missing → missing", "missing"]
    text = plain(parsed.text)
    assert "missing → missing" in text
    assert not re.search("nan|inf", text.lower())
    assert "None" not in text
    # The zeros that are true: of one check none was passed, of one prompt none selected.
    assert re.findall(r"(?<![\d.])0(?![\d.])", text.partition("Did it work?")[0]) == ["0", "0"]


def test_a_failed_run_shows_its_whole_message():
    data = dataclasses.replace(EMPTY, failure=Failure("train", "loss is NaN\nlower the rate"))
    parsed = page(data)
    assert parsed.headline() == "Failed in train: loss is NaN"
    assert "loss is NaN\nlower the rate" in parsed.text


def test_every_figure_of_a_full_run_is_on_the_page(full: Page):
    labels = [attrs["aria-label"] for tag, attrs in full.tags if tag == "svg"]
    assert [(label or "").partition(" ")[0] for label in labels] == [
        "Win",
        "Versions",
        "Histogram",
        "Loss",
        "Reward",
        "Accuracy",
        "Gradient",
    ]
    assert labels[2] == ("Histogram of PVar: 2 prompts, 1 of them selected; the cut is at 0.2.")
