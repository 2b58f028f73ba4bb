"""The line at the end of a run that says where the time went."""

from typing import Any

from flows.outcome import _time_spent
from flows.run_record import NodeRecord


def node(name: str, state: Any, seconds: float | None = None) -> NodeRecord:
    return NodeRecord(name=name, artifact=f"{name}/ab12", state=state, seconds=seconds)


def test_the_longest_stage_comes_first_and_reused_ones_are_named() -> None:
    nodes = [
        node("ingest", "reused", 0.1),
        node("sample", "made", 40.4),
        node("score-vader", "made", 2.04),
        node("train", "made", 125.0),
        node("promote", "waiting", 0.3),
    ]
    # 40.4 + 2.04 + 125 = 167.44
    assert _time_spent(nodes) == (
        "took 2 min 47 s: train 2 min 5 s, sample 40 s, score-vader 2.0 s; reused: ingest"
    )
    assert _time_spent(nodes[1:2]) == "took 40 s: sample 40 s"


def test_nothing_is_said_of_a_run_that_made_nothing() -> None:
    assert _time_spent([node("ingest", "reused", 0.1), node("sample", "reused")]) == ""
    assert _time_spent([node("ingest", "failed"), node("sample", "pending")]) == ""
