"""The stages of a benchmark on its real questions, with published verdicts replayed by a server.

A model's published answers come from a file, its published verdicts from a judge on a real HTTP
server; the stages' figures must be the published ones (shared/EVALUATION.md has the tolerances).
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pvar.errors import JudgeError
from pvar.evaluation.benchmark_scores import BenchmarkScore
from tasks.benchmark_nodes import score_name
from tasks.stages.benchmark import EXPORTED, RESULTS
from tests.services.chat_server import Asked, ChatServer, says, says_token, serving
from tests.services.loopback_http import Sent
from tests.unit.pvar.benchmark_data import (
    ALPACA_EVAL,
    ARENA_HARD,
    needs_shared_data,
    read_jsonl,
)
from tests.workflow import Workflow, start_workflow

pytestmark = [needs_shared_data, pytest.mark.slow]

SEPARATOR = "\n=====\n"
TEMPLATE = SEPARATOR.join(
    ["<|im_start|>user\n{instruction}", "{output_1}", "{output_2}\n<|im_end|>"]
)
MODEL = "model"


def workflow(home: Path, benchmark: Mapping[str, Any], outputs: Path) -> Workflow:
    return start_workflow(
        home,
        **{
            "benchmarks": [dict(benchmark)],
            "benchmark_models": [{"name": MODEL, "outputs": str(outputs)}],
            "runtime.judge_max_in_flight": 8,
            "runtime.judge_anchors": 0,  # calls are counted
        },
    )


def make(flow: Workflow, name: str) -> list[BenchmarkScore]:
    """The scores of the further model: over all questions first."""
    nodes = (f"questions-{name}", f"answers-{name}-{MODEL}", f"judge-{name}-{MODEL}")
    flow.make(*nodes, score_name(name, MODEL))
    return flow.artifact(score_name(name, MODEL)).rows(RESULTS, BenchmarkScore)


@contextmanager
def judging(
    behaviour: Callable[[Asked], Sent], monkeypatch: pytest.MonkeyPatch
) -> Iterator[ChatServer]:
    with serving(behaviour) as server:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", server.base_url)
        yield server


# --- AlpacaEval 2 ---


def alpaca_eval(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "alpaca_eval",
        "questions": str(ALPACA_EVAL / "eval_set.jsonl"),
        "baseline_outputs": str(ALPACA_EVAL / "baseline_gpt4_1106_preview.jsonl.gz"),
        "calibration": str(ALPACA_EVAL / "calibration"),
        "judge": {
            "kind": "alpaca_eval",
            "model": "gpt-4-1106-preview",
            "template": TEMPLATE,
        },
        **changes,
    }


def published_odds(model: str) -> Callable[[Asked], Sent]:
    """The published log-probabilities of an instruction's two tokens, as the judge gave them."""
    rows = {
        row["instruction"]: row for row in read_jsonl(ALPACA_EVAL / f"annotations/{model}.jsonl.gz")
    }

    def answer(asked: Asked) -> Sent:
        row = rows[asked.prompt.partition(SEPARATOR)[0]]
        return says_token({"m": row["logprob_m"], "M": row["logprob_M"]})

    return answer


@pytest.mark.parametrize("model", ["alpaca-7b", "gpt-3.5-turbo-1106_concise"])
def test_alpaca_evals_figures_are_the_published_ones(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order in which the answers are shown is the leaderboard's, or the odds would turn."""
    with (ALPACA_EVAL / "expected.csv").open(newline="") as file:
        published = next(row for row in csv.DictReader(file) if row["model"] == model)
    flow = workflow(tmp_path, alpaca_eval(), ALPACA_EVAL / f"model_outputs/{model}.jsonl.gz")
    with judging(published_odds(model), monkeypatch) as server:
        score, *by_data_set = make(flow, "alpaca_eval")
    # Equal answers are the published draws, and are not asked about.
    assert len(server.asked) == 805 - int(published["n_draws"])
    assert (score.model, score.num_questions, score.coverage) == (model, 805, 1.0)
    assert score.score == pytest.approx(float(published["win_rate"]), abs=1e-6)
    assert score.standard_error == pytest.approx(float(published["standard_error"]), abs=1e-6)
    assert score.discrete_win_rate == pytest.approx(float(published["discrete_win_rate"]), abs=1e-6)
    assert score.mean_length_characters == float(published["avg_length"])
    assert score.length_controlled_win_rate == pytest.approx(
        float(published["length_controlled_winrate"]), abs=0.1
    )
    assert sum(each.num_questions for each in by_data_set) == 805
    assert score.score == pytest.approx(
        sum((each.score or 0) * each.num_questions for each in by_data_set) / 805
    )


# --- Arena-Hard ---


def between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def replayed_games(
    questions: Mapping[str, str],
    baseline: Mapping[str, str],
    labels: Mapping[str, list[str | None]],
) -> Callable[[Asked], Sent]:
    """The label of a question's game; the baseline is assistant A in the first game."""
    ids = {text: uid for uid, text in questions.items()}

    def answer(asked: Asked) -> Sent:
        user = next(each for each in asked.body["messages"] if each["role"] == "user")["content"]
        uid = ids[between(user, "<|User Prompt|>\n", "\n\n<|The Start of Assistant A's Answer|>")]
        shown_first = between(
            user,
            "<|The Start of Assistant A's Answer|>\n",
            "\n<|The End of Assistant A's Answer|>",
        )
        label = labels[uid][0 if shown_first == baseline[uid] else 1]
        return says("I cannot decide." if label is None else f"My verdict: [[{label}]]")

    return answer


def texts(path: Path) -> dict[str, str]:
    return {row["uid"]: row["messages"][-1]["content"]["answer"] for row in read_jsonl(path)}


def prompts(path: Path) -> dict[str, str]:
    return {row["uid"]: row["prompt"] for row in read_jsonl(path)}


def arena_hard(version: str, baseline: Path, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "arena_hard",
        "version": version,
        "questions": str(ARENA_HARD / version / "question.jsonl.gz"),
        "baseline_answers": [str(baseline)],
        "judge": {"kind": "arena_hard", "model": "judge-model", "version": version},
        **changes,
    }


def test_arena_hards_score_is_the_published_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ARENA_HARD / "v0.1"
    games = read_jsonl(folder / "games" / "official_gpt-3.5-turbo-0125.jsonl.gz")
    labels = {row["question_id"]: [game["score"] for game in row["games"]] for row in games}
    baseline = folder / "model_answer" / "gpt-4-0314.jsonl.gz"
    server = replayed_games(prompts(folder / "question.jsonl.gz"), texts(baseline), labels)
    model = folder / "model_answer" / "gpt-3.5-turbo-0125.jsonl.gz"
    flow = workflow(tmp_path, arena_hard("v0.1", baseline), model)
    with judging(server, monkeypatch):
        (score,) = make(flow, "arena_hard")
    assert (score.model, score.num_questions) == ("gpt-3.5-turbo-0125", 500)
    assert score.score == pytest.approx(23.34, abs=0.005)
    assert score.ci_lower == pytest.approx(21.67, abs=1.0)
    assert score.ci_upper == pytest.approx(25.27, abs=1.0)


def test_a_category_without_a_baseline_is_named_and_not_graded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """v2.0's published judgments are not to be had: planted verdicts on the real answers.

    The k-th answered question in the order of ids is a big win of the model in both games if k is
    divisible by 4 (weights 3 + 3), a loss in the first and a tie in the second if k mod 4 is 1
    (0 + ½ of 1 + 1), and two losses otherwise (0 of 2).
    """
    folder = ARENA_HARD / "v2.0"
    everything = read_jsonl(folder / "question.jsonl.gz")
    hard = {row["uid"] for row in everything if row["category"] == "hard_prompt"}
    published = read_jsonl(folder / "model_answer" / "o3-mini-2025-01-31.jsonl.gz")
    baseline = tmp_path / "o3-mini.jsonl"
    baseline.write_text("".join(json.dumps(row) + "\n" for row in published if row["uid"] in hard))
    model = folder / "model_answer" / "sky-t1-32b.jsonl.gz"
    answered = sorted(hard & texts(model).keys())
    planted: list[list[str | None]] = [
        ["B>>A", "A>>B"], ["A>B", "A=B"], ["A>B", "B>A"], ["A>B", "B>A"],
    ]  # fmt: skip
    labels = {uid: planted[number % 4] for number, uid in enumerate(answered)}
    counts = [sum(number % 4 == kind for number in range(len(answered))) for kind in range(4)]
    expected = 100 * (6 * counts[0] + 0.5 * counts[1]) / (6 * counts[0] + 2 * sum(counts[1:]))
    server = replayed_games(
        prompts(folder / "question.jsonl.gz"),
        {row["uid"]: row["messages"][-1]["content"]["answer"] for row in published},
        labels,
    )
    flow = workflow(
        tmp_path / "home",
        arena_hard("v2.0", baseline, style_control=["length", "markdown"]),
        model,
    )
    with judging(server, monkeypatch):
        (score,) = make(flow, "arena_hard")
    questions = flow.artifact("questions-arena_hard").manifest
    assert questions.summary["ungraded_categories"] == "creative_writing"
    assert questions.row_counts.rejected == {"no_baseline_creative_writing": 250}
    assert (score.num_questions, score.num_judged) == (500, len(answered))
    assert score.score == pytest.approx(expected)
    assert score.style_controlled_score is not None


# --- the files that are written ---


def exported(flow: Workflow, name: str) -> Path:
    return flow.artifact(score_name(name, MODEL)).folder(EXPORTED) / MODEL


def test_the_exported_annotations_give_the_same_figures_by_pvar_winrate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.unit.flows.test_winrate_command import printed, run

    model = "alpaca-7b"
    flow = workflow(tmp_path, alpaca_eval(), ALPACA_EVAL / f"model_outputs/{model}.jsonl.gz")
    with judging(published_odds(model), monkeypatch):
        score, *_ = make(flow, "alpaca_eval")
    files = exported(flow, "alpaca_eval")
    run(
        *("alpaca-eval", "--annotations", files / "annotations.json"),
        *("--outputs", files / "model_outputs.json"),
        *("--baseline", ALPACA_EVAL / "baseline_gpt4_1106_preview.jsonl.gz"),
        *("--calibration", ALPACA_EVAL / "calibration", "--json"),
    )
    result = printed(capsys)
    assert result["win_rate"] == score.score
    assert result["length_controlled_winrate"] == score.length_controlled_win_rate
    assert result["avg_length"] == score.mean_length_characters


def test_a_judge_that_is_down_half_way_loses_nothing_that_was_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "alpaca-7b"
    replay = published_odds(model)
    answered = 0

    def half_way(asked: Asked) -> Sent:
        nonlocal answered
        answered += 1
        return replay(asked) if answered <= 400 else Sent(b"{}", 503)

    settings = {"runtime.judge_max_attempts": 1, "runtime.judge_anchors": 0}
    flow = start_workflow(
        tmp_path,
        **{
            "benchmarks": [alpaca_eval()],
            "benchmark_models": [
                {"name": MODEL, "outputs": str(ALPACA_EVAL / f"model_outputs/{model}.jsonl.gz")}
            ],
            **settings,
        },
    )
    with judging(half_way, monkeypatch), pytest.raises(JudgeError):
        make(flow, "alpaca_eval")
    with judging(replay, monkeypatch) as server:
        score, *_ = make(flow, "alpaca_eval")
    assert len(server.asked) == 802 - 400  # three answers equal the baseline's
    assert score.num_judged == 805
