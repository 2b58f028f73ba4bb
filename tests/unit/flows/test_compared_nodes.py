"""What a comparison of selections makes."""

import json
from pathlib import Path

from flows.study_record import compared_nodes
from tests.workflow import start_workflow


def test_a_comparison_takes_no_benchmark_but_keeps_its_questions_out_of_training(
    tmp_path: Path,
) -> None:
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([{"instruction": "a", "output": "b", "generator": "base"}]))
    benchmarks = [
        {
            "kind": "alpaca_eval",
            "questions": str(questions),
            "baseline_outputs": str(questions),
            "judge": {"kind": "fake"},
        },
        {"kind": "lm_eval", "tasks": ["a"], "backend": "fake"},
    ]
    flow = start_workflow(tmp_path / "home", benchmarks=benchmarks)
    alone = [
        *("ingest", "questions-alpaca_eval", "exclude", "sample", "score-vader", "select", "pair"),
        *("train", "answers-opponent", "answers-challenger", "evaluate"),
    ]
    assert list(compared_nodes(flow.config)) == alone
    assert list(compared_nodes(flow.config, ["evaluate", "alpaca_eval"])) == [
        *alone,
        *("answers-alpaca_eval-challenger", "judge-alpaca_eval-challenger"),
        *("answers-alpaca_eval-opponent", "judge-alpaca_eval-opponent"),
        "benchmark-alpaca_eval",
    ]
