"""Stage evaluate on answers written by hand: who wins, over which prompts, and how surely."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pvar.errors import JudgeError
from pvar.judge_config import AfinnJudge, AlpacaEvalJudge, FakeJudge, JudgeConfig
from pvar.records import Message, Prompt, Response, Verdict
from pvar.row_counts import RowCounts
from tasks.engine.artifact import Artifact, ArtifactKeys
from tasks.engine.tables import JudgedShowing
from tasks.stages.evaluate import EVALUATE, EvaluateSpec
from tasks.stages.ingest import PROMPTS
from tasks.stages.judgments import SHOWINGS, VERDICTS
from tasks.stages.sample import RESPONSES
from tests.artifacts import StageBench
from tests.services.chat_server import Asked, says, serving
from tests.services.loopback_http import Sent
from tests.workflow import open_wiring

NAMES = [f"p{number}" for number in range(8)]
GOOD, BAD = "It was good.", "It was bad."
AFINN = AfinnJudge()
NO_QUESTIONS: Mapping[str, str] = {}

Answers = Mapping[str, list[str]]


def evaluate(
    folder: Path,
    challenger: Answers,
    opponent: Answers,
    *,
    judge: JudgeConfig = AFINN,
    required_coverage: float = 0.95,
    questions: Mapping[str, str] = NO_QUESTIONS,
) -> Artifact:
    """Both models' answers to eight held-out prompts, judged; a training prompt is there too.

    `questions` maps the names of ability questions to their accepted answers.
    """
    folder.mkdir(exist_ok=True)
    bench = StageBench(open_wiring(folder), folder)
    prompts = [Prompt(name, (Message("user", name),), "eval", "x") for name in NAMES]
    prompts.append(Prompt("trained-on", (Message("user", "?"),), "train", "x"))
    prompts += [
        Prompt(name, (Message("user", name),), "eval", "x", accepted_answers=(accepted,))
        for name, accepted in questions.items()
    ]

    def put(answers: Answers, role: str) -> ArtifactKeys:
        rows = [
            Response(name, f"{role}-{name}-{index}", index, text, 4, "stop")
            for name, texts in answers.items()
            for index, text in enumerate(texts)
        ]
        return bench.put("sample", RESPONSES, rows, Response)

    spec = EvaluateSpec(
        judge=judge,
        orders="both",
        confidence=0.95,
        seed=0,
        required_coverage=required_coverage,
    )
    inputs = {
        "prompts": bench.put("ingest", PROMPTS, prompts, Prompt),
        "challenger": put(challenger, "challenger"),
        "opponent": put(opponent, "opponent"),
    }
    return bench.run(EVALUATE, spec, inputs)


def everywhere(*texts: str) -> Answers:
    return {name: list(texts) for name in NAMES}


@pytest.mark.parametrize(("ours", "theirs", "win_rate"), [(GOOD, BAD, 1.0), (BAD, GOOD, 0.0)])
def test_the_win_rate_is_the_challengers(
    tmp_path: Path, ours: str, theirs: str, win_rate: float
) -> None:
    summary = evaluate(tmp_path, everywhere(ours), everywhere(theirs)).manifest.summary
    assert summary["win_rate"] == win_rate
    assert (summary["num_judged"], summary["num_wanted"], summary["coverage"]) == (8, 8, 1.0)
    assert summary["challenger_mean_length_characters"] == len(ours)
    assert summary["opponent_mean_length_characters"] == len(theirs)


def test_a_prompt_that_one_model_did_not_answer_is_missed_and_shifts_no_other(
    tmp_path: Path,
) -> None:
    # The challenger wins the even prompts and loses the odd ones. Joined by position, what the
    # opponent did not answer would set every later answer against that of the next prompt.
    ours = {name: [GOOD if n % 2 == 0 else BAD] for n, name in enumerate(NAMES)}
    theirs = {name: [BAD if n % 2 == 0 else GOOD] for n, name in enumerate(NAMES) if n != 2}
    artifact = evaluate(tmp_path, dict(reversed(ours.items())), theirs)
    verdicts = {row.prompt_id: row.preference for row in artifact.rows(VERDICTS, Verdict)}
    assert verdicts == {name: float(n % 2 == 0) for n, name in enumerate(NAMES) if n != 2}
    summary = artifact.manifest.summary
    assert (summary["num_judged"], summary["num_wanted"]) == (7, 8)
    assert summary["coverage"] == 7 / 8  # which is what the gate looks at
    assert summary["win_rate"] == pytest.approx(3 / 7)


def test_missing_verdicts_are_no_result_below_the_required_coverage(tmp_path: Path) -> None:
    sides = everywhere(GOOD), {name: [f"{BAD} {name}"] for name in NAMES}
    half = FakeJudge(missing_share=0.5)
    with pytest.raises(JudgeError, match=r"of 8 pairs are judged \(coverage"):
        evaluate(tmp_path, *sides, judge=half)

    artifact = evaluate(tmp_path, *sides, judge=half, required_coverage=0.1)
    given = [row.preference for row in artifact.rows(VERDICTS, Verdict)]
    judged = [preference for preference in given if preference is not None]
    assert 0 < len(judged) < 8
    assert artifact.manifest.summary["win_rate"] == pytest.approx(sum(judged) / len(judged))
    assert artifact.manifest.summary["coverage"] == len(judged) / 8
    assert artifact.manifest.row_counts == RowCounts(
        rows_in=8, rows_out=len(judged), rejected={"no_verdict": 8 - len(judged)}
    )


def test_the_summary_says_what_judged_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = evaluate(tmp_path / "plain", everywhere(GOOD), everywhere(BAD)).manifest.summary
    assert (plain["judge_served"], plain["judge_form"]) == (None, None)

    def behaviour(asked: Asked) -> Sent:
        # No log-probabilities. The good answer wins in both places.
        good_is_first = asked.prompt.index(GOOD) < asked.prompt.index(BAD)
        body = json.loads(says("m" if good_is_first else "M").body)
        fingerprint = "fp_b" if "## Instruction\n\np0\n" in asked.prompt else "fp_a"
        named = {"model": "m-2026-01-01", "system_fingerprint": fingerprint}
        return Sent(json.dumps(body | named).encode())

    with serving(behaviour) as server:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", server.base_url)
        artifact = evaluate(
            tmp_path, everywhere(GOOD), everywhere(BAD), judge=AlpacaEvalJudge(model="m")
        )

    summary = artifact.manifest.summary
    # Eight pairs in both orders; one of the prompts was judged by another version.
    assert summary["judge_served"] == "m-2026-01-01 (fp_a): 14; m-2026-01-01 (fp_b): 2"
    assert (summary["judge_form"], summary["win_rate"]) == ("text", 1.0)
    showings = artifact.rows(SHOWINGS, JudgedShowing)
    assert {row.served_model for row in showings} == {"m-2026-01-01"}
    assert {row.prompt_id for row in showings if row.system_fingerprint == "fp_b"} == {"p0"}


def test_more_answers_to_the_same_prompts_that_say_the_same_are_no_more_evidence(
    tmp_path: Path,
) -> None:
    ours = {name: GOOD if n < 5 else BAD for n, name in enumerate(NAMES)}
    once, often = (
        evaluate(
            tmp_path / str(repeated),
            {name: [text] * repeated for name, text in ours.items()},
            {name: ["A chair."] * repeated for name in NAMES},
        ).manifest.summary
        for repeated in (1, 6)
    )
    assert often["num_wanted"] == 8
    for figure in ("win_rate", "win_rate_lower", "win_rate_upper"):
        assert often[figure] == once[figure]


QUESTIONS = {"q1": "7", "q2": "Paris", "q3": "blue", "q4": "cat"}
ABILITY = ("ability", "opponent_ability", "ability_change")


def test_questions_are_scored_by_their_answers_and_never_shown_to_the_judge(
    tmp_path: Path,
) -> None:
    # Ours, two answers each: q1 right and wrong, q2 wrong twice, q3 right twice, q4 not answered.
    # Theirs: right everywhere. Over the three that both answered (½ + 0 + 1)/3 against 1. The
    # words that AFINN likes would have won every question.
    ours = {"q1": ["Good: 7", "Good: 17"], "q2": ["good"] * 2, "q3": ["Good. Blue."] * 2}
    theirs = {"q1": ["7"] * 2, "q2": ["In Paris"] * 2, "q3": ["blue"] * 2, "q4": ["a cat"] * 2}
    plain = evaluate(tmp_path / "plain", everywhere(BAD, BAD), everywhere(GOOD, GOOD))
    asked = evaluate(
        tmp_path / "asked",
        everywhere(BAD, BAD) | ours,
        everywhere(GOOD, GOOD) | theirs,
        questions=QUESTIONS,
    )
    summary = asked.manifest.summary
    assert [summary[name] for name in ABILITY] == pytest.approx([0.5, 1.0, -0.5])
    assert summary["num_ability_questions"] == 3
    assert -1 <= float(summary["ability_change_lower"] or 0) < -0.5

    judged = {row.prompt_id for row in asked.rows(SHOWINGS, JudgedShowing)}
    assert judged == {row.prompt_id for row in asked.rows(VERDICTS, Verdict)} == set(NAMES)
    # Win rate, coverage, lengths, endings: as if there were no questions. The exam is another one.
    assert summary["exam"] != plain.manifest.summary["exam"]
    others = {name for name in summary if "ability" not in name and name != "exam"}
    assert {name: summary[name] for name in others} == {
        name: plain.manifest.summary[name] for name in others
    }


def test_the_change_if_all_ability_were_lost_says_whether_a_loss_can_be_seen(
    tmp_path: Path,
) -> None:
    """Answers of which none is right, as to worked solutions, leave nothing to lose."""
    nothing = {name: ["I like it."] for name in QUESTIONS}
    right = {"q1": ["7"], "q2": ["Paris"], "q3": ["blue"], "q4": ["cat"]}
    lowers = {}
    for name, theirs in (("nothing", nothing), ("right", right)):
        sides = everywhere(GOOD) | nothing, everywhere(BAD) | theirs
        summary = evaluate(tmp_path / name, *sides, questions=QUESTIONS).manifest.summary
        # The challenger has none right, so that it is the worst model that there can be.
        assert summary["ability_lost_lower"] == summary["ability_change_lower"]
        lowers[name] = summary["ability_lost_lower"]
    # 0 of 4 becomes 0 of 4: −(1 − 0.025^(1/4)) = −0.602. 4 of 4 becomes 0 of 4: all is lost.
    assert lowers == pytest.approx({"nothing": -0.602, "right": -1}, abs=0.001)


def test_what_could_be_lost_is_of_the_questions_that_both_answered(tmp_path: Path) -> None:
    """The opponent knows only what the challenger did not answer."""
    theirs = {"q1": ["I like it."], "q2": ["I like it."], "q3": ["blue"], "q4": ["cat"]}
    ours = {"q1": ["I like it."], "q2": ["I like it."]}
    sides = everywhere(GOOD) | ours, everywhere(BAD) | theirs
    summary = evaluate(tmp_path, *sides, questions=QUESTIONS).manifest.summary
    assert summary["num_ability_questions"] == 2
    assert summary["ability_lost_lower"] == summary["ability_change_lower"]


def test_without_questions_ability_is_missing_and_with_unanswered_ones_it_is_so_too(
    tmp_path: Path,
) -> None:
    sides = everywhere(GOOD), everywhere(BAD)
    for questions, number in ((NO_QUESTIONS, None), (QUESTIONS, 0)):
        summary = evaluate(tmp_path / str(number), *sides, questions=questions).manifest.summary
        assert summary["num_ability_questions"] == number
        ends = ("ability_change_lower", "ability_change_upper", "ability_lost_lower")
        assert [summary[name] for name in (*ABILITY, *ends)] == [None] * 6
