"""The line at the end of a run that says where the time went."""

from datetime import UTC, datetime, timedelta
from typing import Any

from flows.outcome import _time_spent
from flows.run_record import NodeRecord, RunRecord
from pvar.config import PipelineConfig

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def node(name: str, state: Any, seconds: float | None = None) -> NodeRecord:
    return NodeRecord(name=name, artifact=f"{name}/ab12", state=state, seconds=seconds)


def run(*nodes: NodeRecord, seconds: float | None = None, **changes: Any) -> RunRecord:
    return RunRecord(
        run="r",
        started_at=BEGAN,
        finished_at=None if seconds is None else BEGAN + timedelta(seconds=seconds),
        preset=None,
        config=PipelineConfig(),
        mlflow_run="m",
        mlflow_experiment="1",
        nodes=nodes,
        **changes,
    )


def test_the_longest_stage_comes_first_and_reused_ones_are_named() -> None:
    nodes = [
        node("ingest", "reused", 0.1),
        node("sample", "made", 40.4),
        node("score-vader", "made", 2.04),
        node("train", "made", 125.0),
    ]
    # 40.4 + 2.04 + 125 = 167.44; 192 − 167.44 = 24.56
    stages = "train 2 min 5 s, sample 40 s, score-vader 2.0 s"
    assert _time_spent(run(*nodes, seconds=192)) == (
        f"took 3 min 12 s: {stages}, between the stages 25 s; reused: ingest"
    )
    # It waits, or may have waited.
    waits = node("promote", "waiting", 0.3)
    assert _time_spent(run(*nodes, waits)) == f"took 2 min 47 s: {stages}; reused: ingest"
    resumed = run(*nodes[1:], seconds=10**6, flow_run="f")
    assert _time_spent(resumed) == f"took 2 min 47 s: {stages}"


def test_nothing_is_said_of_a_run_that_made_nothing() -> None:
    nodes = [node("ingest", "reused", 0.1), node("sample", "reused")]
    assert _time_spent(run(*nodes, seconds=9)) == ""
    assert _time_spent(run(node("ingest", "failed"), node("sample", "pending"))) == ""
