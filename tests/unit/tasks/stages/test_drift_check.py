"""A judge on a real HTTP server that answers differently between two runs: is it found?

Two models take a benchmark of 40 questions, one call each. Verdicts are a hash of the whole prompt,
so they are the same whenever the judge is asked, until the server is changed.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.judge_remarks import check_remark, epoch_remark
from flows.pinning import pin
from flows.report_benchmarks import benchmark_reports
from flows.run_record import RunRecord
from pvar.artifacts import Summary
from pvar.benchmark_config import AlpacaEvalBenchmark
from pvar.errors import BudgetError, JudgeError
from tasks.engine.tables import JudgedAnchor
from tasks.report.data import ReportData
from tasks.report.page import render_report
from tasks.stages.drift_check import ANCHORS, NO_ROOM, SWITCHED_OFF
from tasks.stages.judge_epoch import begin_epoch, current_epoch, read_epoch
from tests.services.chat_server import Asked, ChatServer, fails, says, says_token, serving
from tests.services.loopback_http import Sent
from tests.workflow import Workflow, start_workflow

pytestmark = pytest.mark.slow  # hundreds of calls to a real server

NUM_QUESTIONS, NUM_ANCHORS = 40, 32


@dataclass
class Mood:
    """How the server judges; tests change it between two runs."""

    turned: Callable[[int], bool] = lambda _: False
    """Whether a verdict is turned, by a number that is drawn by the prompt."""
    num_until_down: float = math.inf
    """Calls that it still answers."""
    bodies: list[Any] = field(default_factory=list)

    def judge(self, asked: Asked) -> Sent:
        self.num_until_down -= 1
        if self.num_until_down < 0:
            return fails(503)
        self.bodies.append(asked.body)
        drawn = hashlib.sha256(json.dumps(asked.body["messages"]).encode()).digest()
        prefers_second = (drawn[0] % 2 == 1) != self.turned(drawn[1])
        if "logprobs" not in asked.body:
            return says("My verdict: [[B>A]]" if prefers_second else "My verdict: [[A>B]]")
        return says_token({"M": -0.1, "m": -3.0} if prefers_second else {"m": -0.1, "M": -3.0})


@pytest.fixture
def mood() -> Mood:
    return Mood()


@pytest.fixture
def server(mood: Mood, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with serving(mood.judge) as server:
        monkeypatch.setenv("PVAR_JUDGE_BASE_URL", server.base_url)
        yield server


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def started(home: Path, **runtime: Any) -> Workflow:
    home.mkdir(exist_ok=True)
    asked = [f"What is number {number}?" for number in range(NUM_QUESTIONS)]

    def answers(name: str) -> str:
        rows = [{"instruction": q, "output": f"{name}: {q}", "generator": name} for q in asked]
        return write_jsonl(home / f"{name}.jsonl", rows)

    return start_workflow(
        home,
        **{
            "benchmarks": [
                {
                    "kind": "alpaca_eval",
                    "questions": write_jsonl(
                        home / "questions.jsonl",
                        [{"instruction": q, "dataset": "d"} for q in asked],
                    ),
                    "baseline_outputs": answers("baseline"),
                    "judge": {"kind": "alpaca_eval", "model": "judge-model"},
                }
            ],
            "benchmark_models": [
                {"name": name, "outputs": answers(name)} for name in ("first", "second")
            ],
            "runtime.judge_max_in_flight": 1,
            "runtime.judge_max_attempts": 1,
        },
        **{f"runtime.{key}": value for key, value in runtime.items()},
    )


def judge(flow: Workflow, model: str) -> Summary:
    """Judge a model's answers; the figures."""
    judgments = f"judge-alpaca_eval-{model}"
    flow.make("questions-alpaca_eval", f"answers-alpaca_eval-{model}", judgments)
    return flow.artifact(judgments).manifest.summary


def anchors(flow: Workflow, model: str) -> list[JudgedAnchor]:
    return flow.artifact(f"judge-alpaca_eval-{model}").rows(ANCHORS, JudgedAnchor)


def again(flow: Workflow, **runtime: Any) -> Workflow:
    """The same configuration in a later run, with other settings of the runtime."""
    benchmarks = [each.model_copy(update={"judge_epoch": None}) for each in flow.config.benchmarks]
    config = flow.config.model_copy(
        update={
            "benchmarks": tuple(benchmarks),
            "runtime": flow.config.runtime.model_copy(update=runtime),
        }
    )
    return replace(flow, config=pin(config, flow.wiring))


def benchmark_of(flow: Workflow) -> AlpacaEvalBenchmark:
    (benchmark,) = flow.config.benchmarks
    assert isinstance(benchmark, AlpacaEvalBenchmark)
    return benchmark


def test_the_same_judge_has_not_drifted_and_each_model_costs_32_more_calls(
    tmp_path: Path, server: ChatServer, mood: Mood
) -> None:
    flow = started(tmp_path)
    first = judge(flow, "first")
    # The first judgments choose the anchors, and ask about them once more.
    assert len(server.asked) == first["num_calls"] == NUM_QUESTIONS + NUM_ANCHORS
    assert (first["num_anchors"], first["judge_drifted"]) == (0, None)
    assert "first judgments" in str(first["anchor_note"])
    assert len(anchors(flow, "first")) == NUM_ANCHORS

    second = judge(flow, "second")
    assert len(server.asked) == 2 * (NUM_QUESTIONS + NUM_ANCHORS)
    assert (second["num_anchors"], second["anchor_agreement"]) == (NUM_ANCHORS, 1.0)
    assert (second["anchor_p_value"], second["judge_drifted"]) == (1.0, False)
    assert (second["num_anchor_calls"], second["judge_epoch"]) == (NUM_ANCHORS, 1)
    assert second["anchor_note"] is None
    # What is asked again is what was asked about the first model, to the letter.
    texts = [json.dumps(body) for body in mood.bodies]
    num = NUM_QUESTIONS
    assert set(texts[num + NUM_ANCHORS :][:NUM_ANCHORS]) == set(texts[num:][:NUM_ANCHORS])
    assert set(texts[num:][:NUM_ANCHORS]) < set(texts[:num])
    assert all(row.earlier == row.repeated == row.now for row in anchors(flow, "second"))

    judge(flow, "first")
    judge(flow, "second")  # reused
    assert len(server.asked) == 2 * (NUM_QUESTIONS + NUM_ANCHORS)


def test_a_judge_that_changed_is_found_and_both_models_are_judged_again_only_once(
    tmp_path: Path, server: ChatServer, mood: Mood
) -> None:
    flow = started(tmp_path)
    judge(flow, "first")
    before, calls = flow.nodes, len(server.asked)

    mood.turned = lambda drawn: drawn % 2 == 0
    with pytest.raises(JudgeError, match=r"not comparable\. Epoch 2.* run the same again"):
        judge(flow, "second")
    # Nothing but the anchors was paid for.
    assert len(server.asked) == calls + NUM_ANCHORS
    with pytest.raises(JudgeError, match=r"epoch 1 of this judge ended on .* set it to null"):
        judge(flow, "second")
    assert len(server.asked) == calls + NUM_ANCHORS

    flow = again(flow)
    assert benchmark_of(flow).judge_epoch == 2
    same = {name for name, node in flow.nodes.items() if node.keys == before[name].keys}
    assert {f"answers-alpaca_eval-{model}" for model in ("first", "second")} < same
    assert not {f"judge-alpaca_eval-{model}" for model in ("first", "second")} & same
    first, second = judge(flow, "first"), judge(flow, "second")
    assert (first["judge_epoch"], second["judge_epoch"]) == (2, 2)
    assert (second["num_anchors"], second["judge_drifted"]) == (NUM_ANCHORS, False)
    # No verdict of epoch 1 is used: all 40 questions of both, and the anchors of both.
    assert len(server.asked) == calls + NUM_ANCHORS + 2 * (NUM_QUESTIONS + NUM_ANCHORS)

    calls = len(server.asked)
    flow = again(flow)
    judge(flow, "first")
    judge(flow, "second")
    assert len(server.asked) == calls

    flow.make("benchmark-alpaca_eval-second")
    assert flow.artifact("benchmark-alpaca_eval-second").manifest.summary["judge_epoch"] == 2


def test_what_is_to_be_said_about_a_judge(tmp_path: Path, server: ChatServer, mood: Mood) -> None:
    flow = started(tmp_path)
    judge(flow, "first")
    chosen = benchmark_of(flow).judge
    assert epoch_remark(flow.store, chosen, 1) is None
    remark = check_remark(judge(flow, "second"))
    assert remark == (
        "The judge agrees with its earlier self on 100% of 32 comparisons "
        "(95 % interval 89% to 100%, p = 1)."
    )
    flow.make("benchmark-alpaca_eval-second")
    record = RunRecord(
        run="r",
        started_at=datetime.now(UTC),
        preset=None,
        config=flow.config,
        mlflow_run="",
        mlflow_experiment="",
        nodes=(),
    )
    artifacts = {
        "benchmark-alpaca_eval": flow.artifact("benchmark-alpaca_eval-second"),
        "judge-alpaca_eval-challenger": flow.artifact("judge-alpaca_eval-second"),
        "judge-alpaca_eval-opponent": flow.artifact("judge-alpaca_eval-first"),
    }

    def page() -> str:
        reports = benchmark_reports(record, artifacts)
        return render_report(ReportData("r", "t", "d", benchmarks=reports))

    assert remark in page()
    begin_epoch(flow.store, chosen, epoch=2, found_by="judge/x", reason="r")
    assert "Not comparable with later results" in page()
    assert "before the judge changed on 2" in str(epoch_remark(flow.store, chosen, 1))
    assert "from before it changed on 2" in str(epoch_remark(flow.store, chosen, 2))


def test_an_epoch_begins_once_and_numbers_only_grow(tmp_path: Path, server: ChatServer) -> None:
    flow = started(tmp_path)
    judged, other = benchmark_of(flow).judge, flow.config.evaluate.judge
    for reason in ("found by one process", "and by another"):
        begin_epoch(flow.store, judged, epoch=2, found_by="judge/x", reason=reason)
    assert current_epoch(flow.store, judged) == 2
    began = read_epoch(flow.store, judged, 2)
    assert began is not None
    assert began.reason == "found by one process"
    assert current_epoch(flow.store, other) == 1
    begin_epoch(flow.store, judged, epoch=12, found_by="judge/x", reason="")
    assert current_epoch(flow.store, judged) == 12


def test_a_comparison_that_was_interrupted_goes_on_where_it_stopped(
    tmp_path: Path, server: ChatServer, mood: Mood
) -> None:
    flow = started(tmp_path)
    judge(flow, "first")
    calls = len(mood.bodies)

    mood.num_until_down = 10
    with pytest.raises(JudgeError, match="503"):
        judge(flow, "second")
    assert len(mood.bodies) == calls + 10

    mood.num_until_down = math.inf
    assert judge(flow, "second")["num_anchors"] == NUM_ANCHORS
    assert len(mood.bodies) == calls + NUM_ANCHORS + NUM_QUESTIONS


def test_judgments_do_not_fail_for_want_of_anchors(
    tmp_path: Path, server: ChatServer, mood: Mood
) -> None:
    """The server fails as soon as the answers are judged: the next model chooses the anchors."""
    flow = started(tmp_path)
    mood.num_until_down = NUM_QUESTIONS
    first = judge(flow, "first")
    assert first["num_judged"] == NUM_QUESTIONS
    assert "no anchors are kept" in str(first["anchor_note"])

    mood.num_until_down = math.inf
    assert "first judgments" in str(judge(flow, "second")["anchor_note"])


def test_a_budget_without_room_for_anchors_is_said_and_is_no_failure(
    tmp_path: Path, server: ChatServer
) -> None:
    flow = started(tmp_path, judge_max_calls=45)
    first = judge(flow, "first")
    assert (first["num_calls"], first["anchor_note"]) == (NUM_QUESTIONS, NO_ROOM)
    assert list(flow.store.list("anchors/")) == []

    second = judge(again(flow, judge_max_calls=None), "second")
    assert "first judgments" in str(second["anchor_note"])


def test_the_budget_has_no_room_beside_the_answers(tmp_path: Path, server: ChatServer) -> None:
    flow = started(tmp_path)
    judge(flow, "first")
    calls = len(server.asked)
    second = judge(again(flow, judge_max_calls=45), "second")  # 40 fit, and 40 + 32 do not
    assert (second["num_calls"], second["anchor_note"]) == (NUM_QUESTIONS, NO_ROOM)
    assert second["judge_drifted"] is None
    assert len(server.asked) == calls + NUM_QUESTIONS


def test_a_budget_that_needs_several_runs_begins_with_the_anchors(
    tmp_path: Path, server: ChatServer
) -> None:
    flow = started(tmp_path)
    judge(flow, "first")
    flow, calls = again(flow, judge_max_calls=36), len(server.asked)
    with pytest.raises(BudgetError, match="4 of 40 pairs are judged"):  # 36 - 32
        judge(flow, "second")
    second = judge(flow, "second")  # the other 36
    assert (second["num_anchors"], second["num_anchor_calls"]) == (NUM_ANCHORS, 0)
    assert len(server.asked) == calls + NUM_ANCHORS + NUM_QUESTIONS


def test_anchors_can_be_switched_off(tmp_path: Path, server: ChatServer, mood: Mood) -> None:
    flow = started(tmp_path, judge_anchors=0)
    assert judge(flow, "first")["anchor_note"] == SWITCHED_OFF
    mood.turned = lambda _: True
    assert judge(flow, "second")["judge_drifted"] is None
    assert len(server.asked) == 2 * NUM_QUESTIONS
    assert list(flow.store.list("anchors/")) == []


def test_arena_hards_anchors_are_one_game_per_question_in_its_own_wording(
    tmp_path: Path, server: ChatServer, mood: Mood
) -> None:
    questions = [
        {
            "uid": f"q{number}",
            "prompt": f"Question {number}",
            "category": "creative_writing" if number % 2 else "hard_prompt",
        }
        for number in range(20)
    ]

    def answers(name: str) -> str:
        rows = [
            {
                "uid": row["uid"],
                "model": name,
                "messages": [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": {"answer": f"{name} on {row['uid']}"}},
                ],
                "metadata": {},
            }
            for row in questions
        ]
        return write_jsonl(tmp_path / f"{name}.jsonl", rows)

    flow = start_workflow(
        tmp_path,
        **{
            "benchmarks": [
                {
                    "kind": "arena_hard",
                    "questions": write_jsonl(tmp_path / "question.jsonl", questions),
                    "baseline_answers": [answers("o3-mini-2025-01-31")],
                    "judge": {"kind": "arena_hard", "model": "judge-model"},
                }
            ],
            "benchmark_models": [
                {"name": name, "outputs": answers(name)} for name in ("first", "second")
            ],
            "runtime.judge_max_in_flight": 1,
        },
    )
    name = "arena_hard"
    flow.make(f"questions-{name}", f"answers-{name}-first", f"judge-{name}-first")
    texts = [json.dumps(body) for body in mood.bodies]
    assert len(texts) == 40 + 20  # two games per question, and one anchor per question
    assert len({body["messages"][0]["content"] for body in mood.bodies[40:]}) == 2  # wordings
    rows = flow.artifact(f"judge-{name}-first").rows(ANCHORS, JudgedAnchor)
    assert {row.is_swapped for row in rows} == {False, True}
    assert all(row.earlier == row.repeated for row in rows)

    flow.make(f"answers-{name}-second", f"judge-{name}-second")
    assert sorted(json.dumps(body) for body in mood.bodies[60:80]) == sorted(texts[40:])
    figures = flow.artifact(f"judge-{name}-second").manifest.summary
    assert (figures["num_anchors"], figures["anchor_agreement"]) == (20, 1.0)


def test_a_judge_that_is_no_server_has_no_anchors(tmp_path: Path) -> None:
    flow = started(tmp_path)
    (benchmark,) = flow.config.benchmarks
    fake = benchmark.model_copy(update={"judge": flow.config.evaluate.judge})
    flow = replace(flow, config=flow.config.model_copy(update={"benchmarks": (fake,)}))
    figures = judge(flow, "first")
    assert (figures["num_anchors"], figures["anchor_note"]) == (0, None)
    assert list(flow.store.list("anchors/")) == []
