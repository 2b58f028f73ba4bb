"""The page of a run in Prefect."""

from pathlib import Path

from flows.run_page import outcome_of, run_markdown
from flows.run_record import RunRecord
from pvar.evaluation.benchmark_scores import BenchmarkDifference
from tasks.report.data import Failure, NamedLink, ReportData
from tests.unit.tasks.report.test_benchmark_section import report, side
from tests.workflow import start_workflow


def test_benchmarks_and_stand_ins_are_on_the_page(tmp_path: Path) -> None:
    flow = start_workflow(tmp_path)
    record = RunRecord.model_construct(run="r", config=flow.config, nodes=())
    change = BenchmarkDifference(None, 11.5, 4.2, 18.8, 500)
    arena = report(
        side("new model", style_controlled=58.0, difference=change),
        side("new model", category="hard_prompt"),
        side("opponent", score=None, model="a|b"),
        judge_check="The judge answers as before.",
    )
    harness = report(name="lm", kind="lm_eval", not_measured="no lm-eval | at all")
    links = (NamedLink("MLflow run", "abc"),)
    data = ReportData(
        "r", "Demo", "today", benchmarks=(arena, harness), links=links, stand_ins=("all is fake",)
    )
    lines = run_markdown(record, data, flow.wiring).splitlines()
    start = lines.index("|---|---|--:|--:|--:|--:|--:|") + 1
    assert lines[start : start + 4] == [
        "| arena (arena_hard) | new model `new model-7b` | 61.2 (55.5 to 67.8) |  | 58.0 | 99% "
        "| 11.5 (4.2 to 18.8) |",
        "| arena (arena_hard) | opponent `a\\|b` | unknown |  |  | 99% |  |",
        "| lm (lm_eval) | not measured: no lm-eval \\| at all | | | | | |",
        "",
    ]
    assert "arena: The judge answers as before." in lines
    assert "**This run has stand-ins:** all is fake." in lines
    ended = ReportData(
        "r", "Demo", "today", links=links, failure=Failure("train", "go on", was_interrupted=True)
    )
    assert "**train interrupted:** go on" in run_markdown(record, ended, flow.wiring)
    assert outcome_of(ended) == "interrupted in train"
    plain = run_markdown(record, ReportData("r", "Demo", "today", links=links), flow.wiring)
    assert "Benchmarks" not in plain
    assert "stand-ins" not in plain
