"""The stages of judged benchmarks on a few questions: scores by hand, from files to figures."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from infra.judges.fake_judge import FakePairJudge
from infra.judges.lexicon_judge import LexiconJudge
from infra.sources import pin_source
from pvar.errors import BudgetError, InputError, JudgeError
from pvar.evaluation.alpaca_eval_judge import is_swapped
from pvar.evaluation.arena_hard_judge import WITHOUT_OWN_ANSWER
from pvar.evaluation.benchmark_questions import BenchmarkQuestion
from pvar.evaluation.benchmark_scores import BenchmarkDifference, BenchmarkScore, QuestionResult
from pvar.judge_config import AfinnJudge, JudgeConfig
from pvar.ports import Judge
from pvar.records import Comparison, Prompt, Response, Verdict
from pvar.row_counts import RowCounts
from tasks.benchmark_nodes import score_name
from tasks.engine.artifact import Artifact
from tasks.stages.benchmark import (
    BENCHMARK,
    BY_QUESTION,
    DIFFERENCES,
    EXPORTED,
    RESULTS,
    BenchmarkSpec,
)
from tasks.stages.benchmark_arena_hard import ArenaHardScoring
from tasks.stages.benchmark_inputs import ScoredModel
from tasks.stages.exam_files import ArenaHardQuestions
from tasks.stages.exam_questions import BASELINE, QUESTIONS, QuestionsSpec
from tasks.stages.ingest import PROMPTS
from tasks.stages.judge import JUDGE, JudgeSpec
from tasks.stages.judgments import VERDICTS
from tasks.stages.sample import RESPONSES
from tests.artifacts import StageBench
from tests.benchmark_files import (
    CATEGORIES,
    DATA_SETS,
    LOST,
    MODEL,
    WON,
    Answers,
    alpaca_eval_files,
    arena_hard_files,
    arena_outputs,
    games,
    odds,
    outputs,
    served,
    write,
)
from tests.services.chat_server import Asked, says, says_token
from tests.services.loopback_http import Sent
from tests.workflow import Workflow, open_wiring, start_workflow

# --- AlpacaEval ---


def workflow(
    home: Path, benchmark: Mapping[str, Any], *models: Mapping[str, Any], **changes: Any
) -> Workflow:
    return start_workflow(
        home, **{"benchmarks": [benchmark], "benchmark_models": [*models], **changes}
    )


def steps(name: str, model: str = MODEL) -> tuple[str, ...]:
    return (
        f"questions-{name}", f"answers-{name}-{model}", f"judge-{name}-{model}",
        score_name(name, model),
    )  # fmt: skip


def scores(flow: Workflow, name: str, model: str = MODEL) -> dict[str | None, BenchmarkScore]:
    """The scores by category, after making whatever is missing."""
    flow.make(*steps(name, model))
    rows = flow.artifact(score_name(name, model)).rows(RESULTS, BenchmarkScore)
    return {row.category: row for row in rows}


FIVE = {"q1": "x [0.8]", "q2": "baseline q2", "q3": "[0.25]"}
"""A win, a draw that is not judged, and a loss; the rest is not answered."""


def test_alpaca_evals_scores_are_those_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = workflow(
        tmp_path,
        alpaca_eval_files(tmp_path),
        outputs(tmp_path, FIVE),
        **{"promote.min_coverage": 0.6},
    )
    with served(odds, monkeypatch) as server:
        found = scores(flow, "alpaca_eval")
    assert {asked.prompt.split("|")[0] for asked in server.asked} == {"q1", "q3"}

    values = [0.8, 0.5, 0.25]  # of three judged questions
    overall = found[None]
    assert overall.score == pytest.approx(100 * sum(values) / 3)
    assert overall.standard_error == pytest.approx(100 * stdev(values) / math.sqrt(3))
    assert overall.discrete_win_rate == pytest.approx(50.0)  # one win, one draw, one loss
    assert (overall.num_questions, overall.num_judged, overall.coverage) == (5, 3, 0.6)
    # 7, 11 and 6 characters over five questions, rounded down.
    assert overall.mean_length_characters == 4
    assert (overall.model, overall.role) == ("tiny", MODEL)
    assert overall.length_controlled_win_rate is None  # without calibration
    assert found["koala"].score == pytest.approx(65.0)
    assert (found["vicuna"].score, found["vicuna"].num_judged) == (pytest.approx(25.0), 1)
    assert found["vicuna"].num_questions == 3
    assert found["vicuna"].standard_error is None  # of one judged question

    counts = flow.artifact("judge-alpaca_eval-model").manifest.row_counts
    assert counts == RowCounts(rows_in=5, rows_out=3, rejected={"no_answer": 2})
    counts = flow.artifact(score_name("alpaca_eval", MODEL)).manifest.row_counts
    assert counts == RowCounts(rows_in=5, rows_out=3, rejected={"not_judged": 2})


def test_both_orders_occur_and_the_preference_is_the_models_in_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = dict.fromkeys(DATA_SETS, "[0.9]")
    flow = workflow(tmp_path, alpaca_eval_files(tmp_path), outputs(tmp_path, answers))
    with served(odds, monkeypatch) as server:
        found = scores(flow, "alpaca_eval")
    shown = {q: first for q, first, _ in (asked.prompt.split("|") for asked in server.asked)}
    swapped = {q for q, first in shown.items() if not first.startswith("baseline")}
    assert swapped == {q for q in DATA_SETS if is_swapped(q)}  # AlpacaEval's own order
    assert 0 < len(swapped) < 5
    assert found[None].score == pytest.approx(90.0)


def test_an_empty_answer_is_judged_and_has_length_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(asked: Asked) -> Sent:
        _, first, second = asked.prompt.split("|")
        if "" in (first, second):
            token, other = ("M", "m") if first.startswith("baseline") else ("m", "M")
            return says_token({token: math.log(0.1), other: math.log(0.9)})
        return odds(asked)

    answers = dict.fromkeys(DATA_SETS, "four [0.5]") | {"q4": ""}
    flow = workflow(tmp_path, alpaca_eval_files(tmp_path), outputs(tmp_path, answers))
    with served(judge, monkeypatch):
        overall = scores(flow, "alpaca_eval")[None]
    assert overall.mean_length_characters == 4 * 10 // 5
    assert overall.score == pytest.approx(100 * (4 * 0.5 + 0.1) / 5)
    rows = flow.artifact(score_name("alpaca_eval", MODEL)).rows(BY_QUESTION, QuestionResult)
    assert sorted(row.num_characters or 0 for row in rows) == [0, 10, 10, 10, 10]


def test_a_thought_is_neither_judged_nor_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = dict.fromkeys(DATA_SETS, "<think>My secret [0.1]</think>\nSay [0.7]")
    flow = workflow(tmp_path, alpaca_eval_files(tmp_path), outputs(tmp_path, answers))
    with served(odds, monkeypatch) as server:
        overall = scores(flow, "alpaca_eval")[None]
    assert not [asked for asked in server.asked if "secret" in asked.prompt]
    assert overall.score == pytest.approx(70.0)
    assert overall.mean_length_characters == len("Say [0.7]")
    exported = flow.artifact(score_name("alpaca_eval", MODEL)).folder(EXPORTED) / MODEL
    assert "secret" not in (exported / "model_outputs.json").read_text()


def test_equal_answers_after_the_thought_are_a_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {q: f"<think>Hm.</think>baseline {q}" for q in DATA_SETS}
    flow = workflow(tmp_path, alpaca_eval_files(tmp_path), outputs(tmp_path, answers))
    with served(odds, monkeypatch) as server:
        assert scores(flow, "alpaca_eval")[None].score == 50.0
    assert server.asked == []


def test_missing_answers_and_verdicts_end_below_the_required_coverage_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"q1": "[0.8]", "q2": "[0.8]", "q3": "[0.8]", "q4": "no odds"}
    files = alpaca_eval_files(tmp_path), outputs(tmp_path, answers)
    with served(odds, monkeypatch) as server:
        strict = workflow(tmp_path, *files)
        with pytest.raises(JudgeError) as refused:
            scores(strict, "alpaca_eval")
        said = str(refused.value)
        assert "3 of 5 pairs are judged (coverage 60.0%, required 95.0%" in said
        assert "'no_answer': 1" in said
        assert "give answers to all questions" in said
        assert BENCHMARK.name not in {key.split("/")[0] for key in keys(strict)}
        num_asked = len(server.asked)
        lenient = workflow(tmp_path, *files, **{"promote.min_coverage": 0.6})
        assert scores(lenient, "alpaca_eval")[None].num_judged == 3
    # Only the answer without a verdict is asked about again.
    assert {asked.prompt.split("|")[0] for asked in server.asked[num_asked:]} == {"q4"}


def keys(flow: Workflow) -> list[str]:
    return [info.key for info in flow.store.list("")]


def test_the_exported_files_are_those_of_alpaca_eval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = workflow(
        tmp_path,
        alpaca_eval_files(tmp_path),
        outputs(tmp_path, FIVE),
        **{"promote.min_coverage": 0.6},
    )
    with served(odds, monkeypatch):
        scores(flow, "alpaca_eval")
    folder = flow.artifact(score_name("alpaca_eval", MODEL)).folder(EXPORTED) / MODEL
    answers = json.loads((folder / "model_outputs.json").read_text())
    assert answers[0] == {
        "dataset": "koala", "instruction": "q1", "output": "x [0.8]", "generator": "tiny",
    }  # fmt: skip
    annotations = json.loads((folder / "annotations.json").read_text())
    assert [row["instruction"] for row in annotations] == ["q1", "q2", "q3"]
    assert [row["preference"] for row in annotations] == pytest.approx([1.8, 1.5, 1.25])
    assert {(row["generator_1"], row["generator_2"]) for row in annotations} == {("gpt4", "tiny")}
    assert annotations[0]["output_1"] == "baseline q1"
    assert annotations[0]["output_2"] == "x [0.8]"
    assert annotations[0]["annotator"] == "judge-model"


# --- the fakes ---


def test_answers_of_the_fake_engine_are_judged_by_the_fake_judge(tmp_path: Path) -> None:
    benchmark = alpaca_eval_files(
        tmp_path,
        judge={"kind": "fake"},
        answers={"engine": "fake", "max_new_tokens": 12},
    )
    policy = {"name": MODEL, "model": "bundled:smollm2-135m-instruct"}
    flow = workflow(tmp_path, benchmark, policy)
    overall = scores(flow, "alpaca_eval")[None]

    prompts = flow.artifact("questions-alpaca_eval").rows(PROMPTS, Prompt)
    baseline = {
        row.prompt_id: row.baseline_answer
        for row in flow.artifact("questions-alpaca_eval").rows(BASELINE, BenchmarkQuestion)
    }
    answers = {
        row.prompt_id: row.text
        for row in flow.artifact("answers-alpaca_eval-model").rows(RESPONSES, Response)
    }
    assert len(answers) == 5
    # The fake judge is the same in both orders.
    verdicts = FakePairJudge().judge(
        [
            Comparison(p.prompt_id, p.messages, baseline[p.prompt_id], answers[p.prompt_id])
            for p in prompts
        ]
    )
    expected = [verdict.preference or 0.0 for verdict in verdicts]
    assert overall.score == pytest.approx(100 * sum(expected) / 5)
    assert overall.model == MODEL
    assert overall.coverage == 1.0


# --- Arena-Hard ---


def test_arena_hards_scores_are_those_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"h1": f"{WON} one", "h2": f"{LOST} two", "c1": f"{LOST} three"}
    flow = workflow(tmp_path, arena_hard_files(tmp_path), arena_outputs(tmp_path, answers))
    with served(games, monkeypatch) as server:
        found = scores(flow, "arena_hard")
    assert len(server.asked) == 6
    # Points / weights: h1 has 4 / 4, h2 and c1 ½ / 2 each.
    assert found[None].score == pytest.approx(100 * 5 / 8)
    assert found["hard_prompt"].score == pytest.approx(100 * 4.5 / 6)
    assert found["creative_writing"].score == pytest.approx(25.0)
    assert (found[None].num_questions, found[None].num_judged, found[None].coverage) == (3, 3, 1.0)
    lengths = [len(text) for text in answers.values()]
    assert found[None].mean_length_characters == pytest.approx(sum(lengths) / 3)
    assert found[None].style_controlled_score is None
    rows = flow.artifact(score_name("arena_hard", MODEL)).rows(BY_QUESTION, QuestionResult)
    assert [(row.value, row.weight) for row in rows] == [(1.0, 4.0), (0.25, 2.0), (0.25, 2.0)]


def test_arena_hards_files_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"h1": WON, "h2": LOST, "c1": LOST}
    flow = workflow(tmp_path, arena_hard_files(tmp_path), arena_outputs(tmp_path, answers))
    with served(games, monkeypatch):
        scores(flow, "arena_hard")
    folder = flow.artifact(score_name("arena_hard", MODEL)).folder(EXPORTED) / MODEL
    judged = folder / "model_judgment" / "judge__model" / "tiny.jsonl"
    rows = [json.loads(line) for line in judged.read_text().splitlines()]
    assert [row["uid"] for row in rows] == ["h1", "h2", "c1"]
    assert [game["score"] for game in rows[0]["games"]] == ["B>>A", "A>B"]
    assert (rows[0]["model"], rows[0]["baseline"]) == ("tiny", "base-model")
    answered = (folder / "model_answer" / "tiny.jsonl").read_text().splitlines()
    assert json.loads(answered[0])["messages"][-1]["content"]["answer"] == WON


def test_a_category_without_a_baseline_is_named_and_asked_about_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"h1": WON, "h2": LOST, "c1": WON}
    files = arena_hard_files(tmp_path, {"h1": "base", "h2": "base"})
    flow = workflow(tmp_path, files, arena_outputs(tmp_path, answers))
    with served(games, monkeypatch) as server:
        found = scores(flow, "arena_hard")
    assert len(server.asked) == 4
    assert set(found) == {None}
    assert found[None].num_questions == 2
    questions = flow.artifact("questions-arena_hard").manifest
    assert questions.summary["ungraded_categories"] == "creative_writing"
    assert questions.row_counts == RowCounts(
        rows_in=3, rows_out=2, rejected={"no_baseline_creative_writing": 1}
    )


@pytest.mark.parametrize("own", [None, "Be a poet."])
def test_creative_writing_is_judged_by_instructions_of_its_own(
    own: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = {"kind": "arena_hard", "model": "m", "instructions": "Be a critic."}
    files = arena_hard_files(tmp_path, judge=judge, creative_instructions=own)
    answers = {"h1": WON, "h2": WON, "c1": WON}
    flow = workflow(tmp_path, files, arena_outputs(tmp_path, answers))
    with served(games, monkeypatch) as server:
        scores(flow, "arena_hard")
    wording = {
        (asked.prompt.split()[3], asked.body["messages"][0]["content"]) for asked in server.asked
    }
    assert wording == {
        ("h1", "Be a critic."),
        ("h2", "Be a critic."),
        ("c1", own or WITHOUT_OWN_ANSWER.system),
    }


def test_the_budget_is_one_for_both_wordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = arena_hard_files(tmp_path), arena_outputs(tmp_path, dict.fromkeys(CATEGORIES, WON))
    with served(games, monkeypatch) as server:
        # Four games of hard prompts, and one of two of creative writing.
        poor = workflow(tmp_path, *files, **{"runtime.judge_max_calls": 5})
        with pytest.raises(BudgetError, match=r"2 of 3 pairs are judged .*; 5 calls spent"):
            scores(poor, "arena_hard")
        assert len(server.asked) == 5
        # The next run goes on where this one stopped.
        assert scores(poor, "arena_hard")[None].coverage == 1.0
    assert len(server.asked) == 6


def test_a_budget_in_money_is_one_for_both_wordings_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def priced(asked: Asked) -> Sent:
        text = json.loads(games(asked).body)["choices"][0]["message"]["content"]
        return says(text, usage=(1_000_000, 0))

    files = arena_hard_files(tmp_path), arena_outputs(tmp_path, dict.fromkeys(CATEGORIES, WON))
    prices = {
        "model": "judge/model",
        "usd_per_million_prompt_tokens": 1.0,
        "usd_per_million_completion_tokens": 0.0,
    }
    settings = {
        "runtime.judge_prices": [prices],
        "runtime.judge_max_usd": 4.0,  # four games at 1 USD
        "runtime.judge_max_in_flight": 1,
    }
    with served(priced, monkeypatch) as server:
        flow = workflow(tmp_path, *files, **settings)
        with pytest.raises(BudgetError, match="2 of 3 pairs are judged"):
            scores(flow, "arena_hard")
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("answer", "label_1", "label_2", "points"),
    [
        ("It was good.", "B>A", "A>B", 100.0),
        ("It was bad.", "A>B", "B>A", 0.0),
        ("A chair.", "A=B", "A=B", 50.0),
    ],
)
def test_a_judge_without_labels_decides_by_its_preference(
    answer: str, label_1: str, label_2: str, points: float, tmp_path: Path
) -> None:
    """The baseline says neither good nor bad, and is assistant A in the first game."""
    files = arena_hard_files(
        tmp_path, dict.fromkeys(CATEGORIES, "A table."), judge={"kind": "afinn"}
    )
    flow = workflow(tmp_path, files, arena_outputs(tmp_path, dict.fromkeys(CATEGORIES, answer)))
    assert scores(flow, "arena_hard")[None].score == points
    folder = flow.artifact(score_name("arena_hard", MODEL)).folder(EXPORTED) / MODEL
    lines = (folder / "model_judgment" / "afinn" / "tiny.jsonl").read_text().splitlines()
    assert [game["score"] for game in json.loads(lines[0])["games"]] == [label_1, label_2]


def test_v20_leaves_a_question_with_an_unreadable_game_out_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"h1": WON, "h2": "[B>A, ]", "c1": LOST}
    files = arena_hard_files(tmp_path), arena_outputs(tmp_path, answers)
    flow = workflow(tmp_path, *files, **{"promote.min_coverage": 0.6})
    with served(games, monkeypatch):
        found = scores(flow, "arena_hard")
    assert found[None].score == pytest.approx(100 * 4.5 / 6)
    assert (found[None].num_judged, found[None].num_questions) == (2, 3)
    assert found[None].coverage == pytest.approx(2 / 3)


# --- style control ---


def test_style_that_explains_nothing_leaves_the_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every answer has as many words as the baseline's: there is nothing to control for.
    baseline = {"h1": "one two", "h2": "one two"}
    files = arena_hard_files(tmp_path, baseline, style_control=["length"])
    flow = workflow(tmp_path, files, arena_outputs(tmp_path, {"h1": WON, "h2": LOST}))
    with served(games, monkeypatch):
        found = scores(flow, "arena_hard")
    assert found[None].style_controlled_score == pytest.approx(100 * 4.5 / 6, abs=0.01)


def test_style_control_does_not_depend_on_the_models_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is the baseline's."""
    baseline = {"h1": "one two three four five", "h2": "one"}
    files = arena_hard_files(tmp_path, baseline, style_control=["length"])
    answers = {"h1": f"{WON} much longer", "h2": f"{LOST} more words here"}
    models = [arena_outputs(tmp_path, answers, name) for name in (MODEL, "base-model")]
    flow = workflow(tmp_path, files, *models)
    with served(games, monkeypatch):
        one, other = (scores(flow, "arena_hard", model["name"])[None] for model in models)
    assert one.style_controlled_score == other.style_controlled_score
    assert one.style_controlled_score != pytest.approx(one.score)


def test_a_category_without_a_verdict_has_no_style_controlled_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = arena_hard_files(tmp_path, style_control=["length", "markdown"])
    answers = {"h1": WON, "h2": f"{LOST} and", "c1": "[, ]"}
    flow = workflow(
        tmp_path, files, arena_outputs(tmp_path, answers), **{"promote.min_coverage": 0.6}
    )
    with served(games, monkeypatch):
        found = scores(flow, "arena_hard")
    assert found["creative_writing"].score is None
    assert found["creative_writing"].style_controlled_score is None
    assert found["hard_prompt"].style_controlled_score is not None


# --- both models of a run ---


def test_both_models_are_scored_together_and_compared(tmp_path: Path) -> None:
    """By AFINN: a good answer beats the baseline's neutral one in both games, a bad one loses."""
    good, bad, neutral = "It was good.", "It was bad.", "A chair."
    ours = {"h1": good, "h2": good, "c1": neutral}
    theirs = {"h1": neutral, "h2": good, "c1": bad}
    artifact = compared(tmp_path, {"challenger": ours, "opponent": theirs})
    by_role = {
        (row.role, row.category): row.score for row in artifact.rows(RESULTS, BenchmarkScore)
    }
    assert by_role["challenger", None] == pytest.approx(100 * 2.5 / 3)
    assert by_role["opponent", None] == pytest.approx(50.0)
    assert by_role["challenger", "hard_prompt"] == 100.0
    assert by_role["opponent", "hard_prompt"] == 75.0
    differences = {row.category: row for row in artifact.rows(DIFFERENCES, BenchmarkDifference)}
    # (½ + 0 + ½) / 3; hard prompts (½ + 0) / 2; creative writing ½ − 0.
    assert differences[None].difference == pytest.approx(100 / 3)
    assert differences["hard_prompt"].difference == pytest.approx(25.0)
    assert differences["creative_writing"].difference == pytest.approx(50.0)
    summary = artifact.manifest.summary
    assert summary["difference"] == pytest.approx(100 / 3)
    assert float(summary["difference_lower"] or 0) < 100 / 3
    assert summary["challenger_score"] == pytest.approx(100 * 2.5 / 3)
    assert summary["opponent_coverage"] == 1.0
    for role in ("challenger", "opponent"):
        assert (artifact.folder(EXPORTED) / role / "model_answer").is_dir()


def test_the_difference_is_over_questions_that_both_answered(tmp_path: Path) -> None:
    good, neutral = "It was good.", "A chair."
    ours = {"h1": good, "h2": neutral}
    theirs = {"h2": good, "c1": neutral}
    artifact = compared(tmp_path, {"challenger": ours, "opponent": theirs})
    (overall, *_) = artifact.rows(DIFFERENCES, BenchmarkDifference)
    assert (overall.difference, overall.num_questions) == (pytest.approx(-50.0), 1)


def test_a_judge_with_one_wording_is_opened_once(tmp_path: Path) -> None:
    """It may be a reward model, which takes long to load."""
    opened_for: list[str] = []

    def open_judge(settings: JudgeConfig, *_: object) -> Judge:
        opened_for.append(settings.kind)
        return LexiconJudge()

    compared(tmp_path, {"challenger": dict.fromkeys(CATEGORIES, "It was good.")}, judge=open_judge)
    assert opened_for == ["afinn"]


def compared(folder: Path, answers: Mapping[str, Answers], **ports: object) -> Artifact:
    """The scores of these roles by AFINN; the baseline says "A table."."""
    bench = StageBench(open_wiring(folder), folder)
    files = arena_hard_files(folder, dict.fromkeys(CATEGORIES, "A table."))
    spec = ArenaHardQuestions(
        kind="arena_hard",
        version="v2.0",
        questions=pin_source(files["questions"], folder),
        baseline_answers=tuple(pin_source(each, folder) for each in files["baseline_answers"]),
        categories=(),
    )
    questions = bench.run(QUESTIONS, QuestionsSpec(benchmark=spec), {})
    ids = {row.question_id: row.prompt_id for row in questions.rows(BASELINE, BenchmarkQuestion)}
    inputs = {"questions": questions.keys}
    for role, texts in answers.items():
        rows = [Response(ids[q], f"{role}-{q}", 0, text, 4, "stop") for q, text in texts.items()]
        inputs[f"answers-{role}"] = bench.put("sample", RESPONSES, rows, Response)
        judging = JudgeSpec(
            judge=AfinnJudge(), orders="both", creative_instructions=None, required_coverage=0.1
        )
        of_role = {"questions": questions.keys, "answers": inputs[f"answers-{role}"]}
        inputs[f"judgments-{role}"] = bench.run(JUDGE, judging, of_role, **ports).keys
    scoring = ArenaHardScoring(
        kind="arena_hard", version="v2.0", style_control=(), judge="afinn",
        reads_labels=False, seed=0,
    )  # fmt: skip
    models = tuple(ScoredModel(role=role, name=role) for role in answers)
    return bench.run(BENCHMARK, BenchmarkSpec(scoring=scoring, models=models), inputs)


# --- what is used again ---


def test_a_second_time_nothing_is_made(tmp_path: Path) -> None:
    files = alpaca_eval_files(tmp_path, judge={"kind": "fake"})
    flow = workflow(tmp_path, files, outputs(tmp_path, FIVE), **{"promote.min_coverage": 0.1})
    scores(flow, "alpaca_eval")
    assert [flow.make(name).reused for name in steps("alpaca_eval")] == [True] * 4


def digests(flow: Workflow, *names: str) -> list[str]:
    return [flow.nodes[name].keys.root for name in names]


def test_another_judge_judges_again_and_asks_no_model_again(tmp_path: Path) -> None:
    fake, afinn = (
        workflow(
            tmp_path, alpaca_eval_files(tmp_path, judge={"kind": kind}), outputs(tmp_path, FIVE)
        )
        for kind in ("fake", "afinn")
    )
    same = [
        a == b
        for a, b in zip(*(digests(f, *steps("alpaca_eval")) for f in (fake, afinn)), strict=True)
    ]
    assert same == [True, True, False, False]


def test_other_questions_or_another_baseline_use_nothing_again(tmp_path: Path) -> None:
    first = workflow(tmp_path, alpaca_eval_files(tmp_path), outputs(tmp_path, FIVE))
    before = digests(first, *steps("alpaca_eval"))
    baseline = [{"instruction": q, "output": "new", "generator": "gpt4"} for q in DATA_SETS]
    files = alpaca_eval_files(tmp_path) | {
        "baseline_outputs": write(tmp_path / "new.jsonl", baseline)
    }
    second = workflow(tmp_path, files, outputs(tmp_path, FIVE))
    after = digests(second, *steps("alpaca_eval"))
    assert not set(before) & set(after)


def test_the_opponents_judgments_are_those_of_every_challenger(tmp_path: Path) -> None:
    benchmark = alpaca_eval_files(tmp_path, judge={"kind": "fake"})
    one, another = (
        start_workflow(tmp_path, **{"benchmarks": [benchmark], "train.seed": seed})
        for seed in (1, 2)
    )
    opponents = ("answers-alpaca_eval-opponent", "judge-alpaca_eval-opponent")
    assert digests(one, *opponents) == digests(another, *opponents)
    challengers = ("answers-alpaca_eval-challenger", "judge-alpaca_eval-challenger")
    assert not set(digests(one, *challengers)) & set(digests(another, *challengers))
    # And they are those of a further model that is the same one.
    policy = {"name": MODEL, "model": "bundled:smollm2-135m-instruct"}
    alone = workflow(tmp_path, benchmark, policy)
    names = ("answers-alpaca_eval-model", "judge-alpaca_eval-model")
    assert digests(alone, *names) == digests(one, *opponents)


def test_a_verdict_that_was_paid_for_is_used_by_another_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two benchmarks with the same questions in another order are two artifacts, judged once."""
    files = alpaca_eval_files(tmp_path)
    rows = [{"instruction": q, "dataset": d} for q, d in reversed(DATA_SETS.items())]
    turned = files | {"name": "turned", "questions": write(tmp_path / "turned.jsonl", rows)}
    answers = outputs(tmp_path, dict.fromkeys(DATA_SETS, "[0.7]"))
    flow = start_workflow(tmp_path, benchmarks=[files, turned], benchmark_models=[answers])
    with served(odds, monkeypatch) as server:
        assert scores(flow, "alpaca_eval")[None].score == pytest.approx(70.0)
        assert scores(flow, "turned")[None].score == pytest.approx(70.0)
    assert len(server.asked) == 5
    assert digests(flow, "judge-alpaca_eval-model") != digests(flow, "judge-turned-model")


# --- answers from a file ---


def test_outputs_of_another_benchmark_are_refused_and_a_file_must_name_its_answers(
    tmp_path: Path,
) -> None:
    flow = workflow(
        tmp_path, alpaca_eval_files(tmp_path), outputs(tmp_path, {"another question": "x"})
    )
    with pytest.raises(InputError, match=r"outputs\.jsonl has 1 answers, but none to any of 5 que"):
        scores(flow, "alpaca_eval")


def test_verdicts_of_questions_without_an_answer_say_so(tmp_path: Path) -> None:
    files = alpaca_eval_files(tmp_path, judge={"kind": "fake"})
    flow = workflow(tmp_path, files, outputs(tmp_path, FIVE), **{"promote.min_coverage": 0.6})
    scores(flow, "alpaca_eval")
    verdicts = flow.artifact("judge-alpaca_eval-model").rows(VERDICTS, Verdict)
    assert [row.reason for row in verdicts if row.preference is None] == ["no_answer"] * 2
    assert len({row.prompt_id for row in verdicts}) == 5
